// Making elements. What comes from elsewhere is only ever text here: there is no HTML in strings.

/** An element: `el("p", { class: "lead" }, "text", child, …)`. `on…` are listeners. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A list of facts; those without a value are left out. */
export function facts(pairs) {
  const list = el("dl", { class: "facts" });
  for (const [name, value, kind] of pairs) {
    if (value === null || value === "") continue;
    list.append(el("dt", {}, name), el("dd", kind ? { class: kind } : {}, value));
  }
  return list;
}

/** A card with a heading. */
export function card(title, ...children) {
  return el("section", { class: "card" }, el("h2", {}, title), ...children);
}

/** A notice: `kind` is note, good, warning or bad. The word before it says so without colour. */
export function notice(kind, word, ...children) {
  const role = kind === "bad" || kind === "warning" ? "alert" : "status";
  return el("div", { class: `notice ${kind}`, role }, el("strong", {}, word), ...children);
}

/** Show these in place of what the page showed, and read from their heading on. */
export function show(...children) {
  document.body.classList.remove("working"); // the terminal's wide page
  const main = document.getElementById("main");
  main.replaceChildren(...children.filter((child) => child !== null));
  const heading = main.querySelector("h1");
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
}
