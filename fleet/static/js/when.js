// Times arrive as UTC and are shown in the reader's own zone and language; the UTC stays in the title.

const language = document.documentElement.lang || "en";
const date = new Intl.DateTimeFormat(language, { dateStyle: "medium" });
const zone = new Intl.DateTimeFormat(language, { hour: "numeric", timeZoneName: "short" });
const pad = (number) => String(number).padStart(2, "0");

// 07:41:30 in both languages: what a table or an axis has room for.
const minutes = (at) => `${pad(at.getHours())}:${pad(at.getMinutes())}`;
const seconds = (at) => `${minutes(at)}:${pad(at.getSeconds())}`;
const zoneName = (at) => zone.formatToParts(at).find((part) => part.type === "timeZoneName").value;
const forms = {
  short: (at) => `${date.format(at)}, ${minutes(at)}`,
  precise: (at) => `${date.format(at)}, ${seconds(at)}`,
  time: seconds,
  date: (at) => date.format(at),
  relative: ago,
  remaining,
  stamp: (at) => `${date.format(at)}, ${seconds(at)} ${zoneName(at)}`, // for what may be printed
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
  const left = Math.max(0, Math.round((at - Date.now()) / 1000));
  const [h, m, s] = [Math.floor(left / 3600), Math.floor(left / 60) % 60, left % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

function show(element) {
  const text = (forms[element.dataset.form] ?? forms.short)(new Date(element.dateTime));
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

export const timeOfDay = (ms) => seconds(new Date(ms));
