import { Controller } from "../../vendor/stimulus/stimulus.js";
import uPlot from "../../vendor/uplot/uPlot.esm.js";
import { watch } from "../socket.js";
import { timeOfDay } from "../when.js";

// Live charts of one device, and the same readings as tables.
//
// The device sends at its fast rate only while this page watches: pausing, leaving, or hiding the
// tab lets the lease lapse. Readings live in one array per metric, aligned with `times`; old fast
// readings are thinned to one a second, so an hour stays small.

const MAX_POINTS = 6000;
const FINE_S = 130; // readings younger than this keep their full rate
const TABLE_ROWS = 30;
const COLOURS = ["--chart-a", "--chart-b", "--chart-c", "--chart-d"];
const DASHES = [undefined, [10, 3], [3, 3], [12, 3, 3, 3]];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export default class extends Controller {
  static targets = ["figure", "plot", "now", "rows", "pause", "state", "rate", "window", "history"];
  static values = {
    device: String,
    samples: String, // address of the history
    paused: String, // words, translated by the page
    live: String,
    waiting: String,
    hidden: String,
    pause: String,
    resume: String,
  };

  connect() {
    this.language = document.documentElement.lang || "en";
    this.times = [];
    this.readings = new Map(); // metric -> values aligned with times
    this.states = [];
    this.paused = false;
    this.span = 120;
    this.lastLive = 0;
    this.charts = this.figureTargets.map((figure) => this.build(figure));
    this.resizer = new ResizeObserver(() => this.resize());
    for (const { plot } of this.charts) this.resizer.observe(plot);
    this.onTheme = () => this.rebuild();
    this.onVisible = () => this.follow();
    document.addEventListener("patency:theme", this.onTheme);
    document.addEventListener("visibilitychange", this.onVisible);
    this.slow = setInterval(() => this.words(), 1000);
    this.load(); // without a websocket too
    this.follow();
  }

  disconnect() {
    this.stop?.();
    this.stop = null;
    clearInterval(this.slow);
    cancelAnimationFrame(this.frame);
    this.resizer.disconnect();
    document.removeEventListener("patency:theme", this.onTheme);
    document.removeEventListener("visibilitychange", this.onVisible);
    for (const { chart } of this.charts) chart.destroy();
  }

  // --- readings -------------------------------------------------------------------------------

  async load() {
    const response = await fetch(this.samplesValue, { headers: { Accept: "application/json" } });
    if (!response.ok) return;
    const history = await response.json();
    const own = this.times.map((time, i) => {
      const values = {};
      for (const [metric, column] of this.readings)
        if (column[i] != null) values[metric] = column[i];
      return { at: time * 1000, state: this.states[i], values };
    });
    this.times = [];
    this.states = [];
    this.readings = new Map();
    for (const sample of [...history.samples, ...own].sort((a, b) => a.at - b.at))
      this.push(sample);
    this.draw();
  }

  push({ at, state, values }) {
    const time = at / 1000;
    const last = this.times.length ? this.times[this.times.length - 1] : -Infinity;
    if (time <= last) return; // late or doubled
    const size = this.times.length;
    this.times.push(time);
    this.states.push(state);
    for (const metric of Object.keys(values))
      if (!this.readings.has(metric)) this.readings.set(metric, new Array(size).fill(null));
    for (const [metric, column] of this.readings) column.push(values[metric] ?? null);
    if (this.times.length > MAX_POINTS) this.thin(time);
  }

  thin(now) {
    let kept = -Infinity;
    const keep = this.times.map((time) => {
      if (time < now - 3700) return false;
      if (time < now - FINE_S && time - kept < 0.95) return false;
      kept = time;
      return true;
    });
    const pick = (column) => column.filter((_, i) => keep[i]);
    this.times = pick(this.times);
    this.states = pick(this.states);
    for (const [metric, column] of this.readings) this.readings.set(metric, pick(column));
  }

  // --- following ------------------------------------------------------------------------------

  follow() {
    const wanted = !this.paused && !document.hidden;
    if (wanted && !this.stop) {
      this.stop = watch(`device.${this.deviceValue}`, (message) => this.hear(message), {
        live: true,
      });
    } else if (!wanted && this.stop) {
      this.stop();
      this.stop = null;
    }
    this.words();
  }

  hear(message) {
    if (message.kind === "watching") this.load();
    if (message.kind !== "live") return;
    this.lastLive = Date.now();
    this.push(message);
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  toggle() {
    this.paused = !this.paused;
    this.pauseTarget.setAttribute("aria-pressed", String(this.paused));
    this.follow();
  }

  choose(event) {
    this.span = Number(event.target.value);
    this.draw();
  }

  // --- showing --------------------------------------------------------------------------------

  build(figure) {
    const series = JSON.parse(figure.dataset.series);
    const plot = figure.querySelector("[data-charts-target=plot]");
    const chart = new uPlot(this.options(figure, series, plot), this.columns(series), plot);
    return { figure, series, plot, chart };
  }

  options(figure, series, plot) {
    const grid = { stroke: css("--chart-grid"), width: 1 };
    const axis = { stroke: css("--chart-text"), grid, ticks: { show: false }, font: "12px system-ui" };
    const digits = Number(figure.dataset.digits);
    const number = new Intl.NumberFormat(this.language, { maximumFractionDigits: digits });
    const floor = Number(figure.dataset.floor);
    const ceiling = Number(figure.dataset.ceiling);
    return {
      width: Math.max(200, plot.clientWidth),
      height: Math.max(120, plot.clientHeight),
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { size: 6 }, y: false },
      padding: [8, 28, 0, 0], // at the right, room for half of the last time
      scales: {
        x: { time: true, range: () => this.range() },
        // The usual range of the metric; it widens when a reading leaves it.
        y: { range: (_, low, high) => [Math.min(floor, low ?? floor), Math.max(ceiling, high ?? 0)] },
      },
      axes: [
        {
          ...axis,
          space: 70,
          size: 26,
          values: (_, ticks) => ticks.map((tick) => timeOfDay(tick * 1000)),
        },
        { ...axis, size: 48, values: (_, ticks) => ticks.map((tick) => number.format(tick)) },
      ],
      series: [
        {},
        ...series.map((one, i) => ({
          label: one.label,
          stroke: css(one.limit ? "--chart-limit" : COLOURS[i % COLOURS.length]),
          width: one.limit ? 1 : 1.75,
          dash: one.limit ? [6, 4] : DASHES[i % DASHES.length],
          auto: !one.limit, // shown when a reading comes near it, never squeezing the readings
          points: { show: false },
          spanGaps: true,
        })),
      ],
    };
  }

  range() {
    const end = this.paused
      ? (this.times[this.times.length - 1] ?? Date.now() / 1000)
      : Math.max(this.times[this.times.length - 1] ?? 0, Date.now() / 1000);
    return [end - this.span, end];
  }

  columns(series) {
    const empty = new Array(this.times.length).fill(null);
    return [this.times, ...series.map((one) => this.readings.get(one.metric) ?? empty)];
  }

  rebuild() {
    for (const one of this.charts) {
      one.chart.destroy();
      one.chart = new uPlot(
        this.options(one.figure, one.series, one.plot),
        this.columns(one.series),
        one.plot,
      );
    }
  }

  resize() {
    for (const { chart, plot } of this.charts)
      if (plot.clientWidth) chart.setSize({ width: plot.clientWidth, height: plot.clientHeight });
  }

  draw() {
    for (const { chart, series } of this.charts) chart.setData(this.columns(series), true);
    this.element.dataset.points = String(this.times.length);
  }

  // Once a second: the present values, the table, and what the page is doing.
  words() {
    if (!this.paused) {
      if (Date.now() - this.lastLive > 1500) this.draw(); // let the time axis run on
      for (const cell of this.nowTargets) this.value(cell);
      this.table();
    }
    const fresh = Date.now() - this.lastLive < 3000;
    let words = this.waitingValue;
    if (this.paused) words = this.pausedValue;
    else if (document.hidden) words = this.hiddenValue;
    else if (fresh) words = this.liveValue;
    this.element.dataset.live = String(fresh && !this.paused);
    if (this.rateTarget.textContent !== words) this.rateTarget.textContent = words;
    const label = this.paused ? this.resumeValue : this.pauseValue;
    if (this.stateTarget.textContent !== label) this.stateTarget.textContent = label;
  }

  value(cell) {
    const column = this.readings.get(cell.dataset.metric);
    const value = column?.[column.length - 1];
    if (value == null) return; // keep what the page came with
    const text = this.number(value * Number(cell.dataset.scale), Number(cell.dataset.digits));
    if (cell.textContent !== text) cell.textContent = text;
  }

  number(value, digits) {
    return new Intl.NumberFormat(this.language, {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }).format(value);
  }

  // One row a second at most, newest first.
  table() {
    if (!this.hasRowsTarget || !this.historyTarget.open) return;
    const heads = [...this.historyTarget.querySelectorAll("th[data-metric]")];
    const rows = [];
    let previous = null;
    for (let i = this.times.length - 1; i >= 0 && rows.length < TABLE_ROWS; i -= 1) {
      const second = Math.floor(this.times[i]);
      if (second === previous) continue;
      previous = second;
      const row = document.createElement("tr");
      const time = document.createElement("th");
      time.scope = "row";
      time.textContent = timeOfDay(this.times[i] * 1000);
      time.title = new Date(this.times[i] * 1000).toISOString();
      row.append(time);
      for (const head of heads) {
        const cell = document.createElement("td");
        const value = this.readings.get(head.dataset.metric)?.[i];
        cell.className = "end";
        cell.textContent =
          value == null
            ? "–"
            : this.number(value * Number(head.dataset.scale), Number(head.dataset.digits));
        row.append(cell);
      }
      rows.push(row);
    }
    this.rowsTarget.replaceChildren(...rows);
  }
}
