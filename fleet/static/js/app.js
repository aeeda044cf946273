// What every page runs. No build: the browser loads these modules as they are.
import { Application } from "../vendor/stimulus/stimulus.js";
import CopyController from "./controllers/copy.js";
import LevelController from "./controllers/level.js";
import LinkController from "./controllers/link.js";
import MenuController from "./controllers/menu.js";
import PasskeyController from "./controllers/passkey.js";
import PrintController from "./controllers/print.js";
import RefreshController from "./controllers/refresh.js";
import SearchController from "./controllers/search.js";
import ThemeController from "./controllers/theme.js";
import { start } from "./when.js";

const application = Application.start();
application.register("copy", CopyController);
application.register("level", LevelController);
application.register("link", LinkController);
application.register("menu", MenuController);
application.register("passkey", PasskeyController);
application.register("print", PrintController);
application.register("refresh", RefreshController);
application.register("search", SearchController);
application.register("theme", ThemeController);
document.documentElement.classList.add("js");
start();

// uPlot only where something is drawn.
if (document.querySelector('[data-controller~="charts"]')) {
  const { default: ChartsController } = await import("./controllers/charts.js");
  application.register("charts", ChartsController);
}

// What a person has opened stays open when what is around it is brought up to date.
window.Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) =>
  name !== "open" || element.tagName !== "DETAILS";

// A partial update that meets a lost sign-in or a fault must not pass silently.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status >= 400) document.documentElement.classList.add("stale");
});
document.addEventListener("htmx:sendError", () => document.documentElement.classList.add("stale"));
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.xhr.status < 400) document.documentElement.classList.remove("stale");
});
