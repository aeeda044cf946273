// The page's texts, in English or Canadian French. English is the source and the key.

const STORED = "patency.language";
export const LANGUAGES = { en: "English", "fr-CA": "Français (Canada)" };
let texts = {};
let chosen = "en";

/** The language in use, as a tag. */
export function language() {
  return chosen;
}

function wanted() {
  try {
    const stored = localStorage.getItem(STORED);
    if (stored in LANGUAGES) return stored;
  } catch {
    // storage may be forbidden
  }
  return navigator.languages.find((tag) => /^(en|fr)/i.test(tag))?.match(/^fr/i) ? "fr-CA" : "en";
}

/** Take up the reader's language; the page is English until then. */
export async function speak() {
  chosen = wanted();
  if (chosen !== "en") texts = await (await fetch(`/locale/${chosen}.json`)).json();
  document.documentElement.lang = chosen;
}

/** Remember a language and load the page again in it. */
export function choose(tag) {
  try {
    localStorage.setItem(STORED, tag);
  } catch {
    return;
  }
  location.reload();
}

/** The text in the reader's language, with `{name}` replaced. For textContent, never for HTML. */
export function _(text, values = {}) {
  return (texts[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A number of seconds in words: 1 h 30 min. */
export function duration(seconds) {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const parts = [];
  if (hours) parts.push(_("{count} h", { count: hours }));
  if (minutes) parts.push(_("{count} min", { count: minutes }));
  if (!hours && seconds % 60) parts.push(_("{count} s", { count: seconds % 60 }));
  return parts.join(" ") || _("{count} s", { count: 0 });
}
