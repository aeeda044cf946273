import { Controller } from "../../vendor/stimulus/stimulus.js";

// Three buttons: follow the system, light, dark. theme.js remembers.
export default class extends Controller {
  static targets = ["choice"];

  connect() {
    this.mark();
  }

  choose(event) {
    window.patencyTheme.choose(event.params.to);
    this.mark();
  }

  mark() {
    const now = document.documentElement.dataset.themeChoice;
    for (const button of this.choiceTargets)
      button.setAttribute("aria-pressed", String(button.dataset.themeToParam === now));
  }
}
