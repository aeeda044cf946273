import { Controller } from "../../vendor/stimulus/stimulus.js";
import { watch } from "../socket.js";

// Fetches its element again (hx-trigger="refresh") when something it shows has changed.
// Hints come in bursts: one fetch follows the last of them, but none waits longer than `every`.
export default class extends Controller {
  static values = { groups: Array, kinds: Array, wait: { type: Number, default: 120 } };

  connect() {
    this.stops = this.groupsValue.map((group) =>
      watch(group, (message) => {
        if (message.kind === "live") return;
        const wanted = !this.kindsValue.length || this.kindsValue.includes(message.kind);
        if (wanted || message.kind === "watching") this.schedule();
      }),
    );
    // Hints are a convenience and may be lost: look again now and then, while somebody looks.
    this.fallback = setInterval(() => document.hidden || this.fetch(), 30_000);
  }

  disconnect() {
    for (const stop of this.stops ?? []) stop();
    clearInterval(this.fallback);
    clearTimeout(this.timer);
    this.timer = null;
  }

  schedule() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.fetch();
    }, this.waitValue);
  }

  fetch() {
    window.htmx.trigger(this.element, "refresh");
  }
}
