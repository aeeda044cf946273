// Times arrive as UTC and are shown in the reader's own zone and language; the UTC stays in the title.

const language = document.documentElement.lang || "en";
const form = (options) => new Intl.DateTimeFormat(language, { hourCycle: "h23", ...options });
const forms = {
  short: form({ dateStyle: "medium", timeStyle: "short" }),
  precise: form({ dateStyle: "medium", timeStyle: "medium" }),
  time: form({ timeStyle: "medium" }),
  date: form({ dateStyle: "medium" }),
  // For what may be printed: says which zone.
  stamp: form({
    year: "numeric",
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    timeZoneName: "short",
  }),
};
const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "long" });
const STEPS = [
  ["second", 60],
  ["minute", 60],
  ["hour", 24],
  ["day", 30],
  ["month", 12],
  ["year", Infinity],
];

function ago(at) {
  let amount = (at - Date.now()) / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(amount) < size) return relative.format(Math.round(amount), unit);
    amount /= size;
  }
  return "";
}

function remaining(at) {
  const seconds = Math.max(0, Math.round((at - Date.now()) / 1000));
  const pad = (number) => String(number).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

function show(element) {
  const at = new Date(element.dateTime);
  const style = element.dataset.form;
  let text;
  if (style === "relative") text = ago(at);
  else if (style === "remaining") text = remaining(at);
  else text = (forms[style] ?? forms.short).format(at);
  if (element.textContent !== text) element.textContent = text;
}

export function localise(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) show(element);
}

export function start() {
  localise();
  document.addEventListener("htmx:afterSwap", () => localise()); // before the next paint
  setInterval(() => {
    for (const element of document.querySelectorAll('time[data-form="relative"]')) show(element);
  }, 10_000);
  setInterval(() => {
    for (const element of document.querySelectorAll('time[data-form="remaining"]')) show(element);
  }, 1000);
}

export const timeOfDay = (ms) => forms.time.format(new Date(ms));
