// What all pages of the access origin have: language, theme, the bar; and their configuration.

import { fromBase64 } from "./bytes.js";
import { el, notice, show } from "./dom.js";
import { Told } from "./errors.js";
import { LANGUAGES, _, choose, language, speak } from "./i18n.js";
import * as words from "./words.js";

const THEME = "patency.theme";

/** Run a page: `main` makes its contents. What goes wrong is told in words. */
export async function page(title, main) {
  if (window.top !== window.self) return; // inside another page: shows nothing
  theme();
  await speak();
  document.title = `${title()} · Patency`;
  bar();
  try {
    need();
    await main();
  } catch (error) {
    if (!(error instanceof Told)) console.error(error);
    failed(error);
  }
}

function need() {
  if (!window.isSecureContext) throw new Told("not_secure");
  if (!window.PublicKeyCredential) throw new Told("no_passkeys");
}

/** The end of what this page does, with the remedy. */
export function failed(error) {
  const { what, remedy } = words.failure(error);
  show(
    el("h1", {}, _("This did not work")),
    notice("bad", _("Error:"), el("p", {}, what), el("p", {}, remedy)),
  );
}

/** config.json: the portal's address, and the device roots. Throws Told. */
export async function readConfig() {
  try {
    const read = await (await fetch("/config.json", { cache: "no-store" })).json();
    const { origin } = new URL(read.portal);
    const roots = read.device_roots.map(fromBase64);
    if (!roots.length || !origin.startsWith("http")) throw new TypeError("incomplete");
    return { portal: read.portal.replace(/\/$/, ""), roots };
  } catch {
    throw new Told("no_config");
  }
}

// --- the bar --------------------------------------------------------------------------------------

function bar() {
  const others = Object.entries(LANGUAGES).filter(([tag]) => tag !== language());
  document.getElementById("tools").replaceChildren(
    ...others.map(([tag, name]) =>
      el("button", { type: "button", lang: tag, onclick: () => choose(tag) }, name),
    ),
    el("button", { type: "button", onclick: turn }, themeWord()),
  );
  document.getElementById("skip").textContent = _("Skip to the content");
}

function isDark() {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function themeWord() {
  return isDark() ? _("Light") : _("Dark");
}

function theme() {
  try {
    const stored = localStorage.getItem(THEME);
    if (stored === "dark" || stored === "light") document.documentElement.dataset.theme = stored;
  } catch {
    // the system's, then
  }
}

function turn({ currentTarget }) {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem(THEME, next);
  } catch {
    // not remembered then
  }
  currentTarget.textContent = themeWord();
  document.dispatchEvent(new CustomEvent("patency:theme"));
}
