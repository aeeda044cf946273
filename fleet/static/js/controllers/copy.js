import { Controller } from "../../vendor/stimulus/stimulus.js";

// Copies the text of its source and says so.
export default class extends Controller {
  static targets = ["source", "said"];
  static values = { done: String };

  async copy() {
    const text = this.sourceTarget.textContent.trim();
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // No permission: select it, so that the keyboard can copy.
      getSelection().selectAllChildren(this.sourceTarget);
      return;
    }
    this.saidTarget.textContent = this.doneValue;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (this.saidTarget.textContent = ""), 2500);
  }

  disconnect() {
    clearTimeout(this.timer);
  }
}
