// Runs before the first paint, so that a dark room stays dark. "auto" follows the system.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("patency.theme") || "auto";
    } catch {
      return "auto"; // storage may be forbidden
    }
  };
  const apply = () => {
    const choice = stored();
    const theme = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
    const changed = document.documentElement.dataset.bsTheme !== theme;
    document.documentElement.dataset.bsTheme = theme;
    document.documentElement.dataset.themeChoice = choice;
    if (changed) document.dispatchEvent(new CustomEvent("patency:theme"));
  };
  apply();
  dark.addEventListener("change", apply);
  window.addEventListener("storage", apply); // another tab chose
  window.patencyTheme = {
    choose(choice) {
      try {
        localStorage.setItem("patency.theme", choice);
      } catch {
        // not remembered then
      }
      apply();
      document.documentElement.dataset.themeChoice = choice;
    },
  };
})();
