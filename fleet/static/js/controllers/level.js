import { Controller } from "../../vendor/stimulus/stimulus.js";

// Greys out the services that the chosen level does not reach. The server decides all the same.
export default class extends Controller {
  static targets = ["level", "service"];
  static values = { order: Array };

  connect() {
    this.update();
  }

  update() {
    const chosen = this.levelTargets.find((input) => input.checked)?.value;
    const rank = this.orderValue.indexOf(chosen);
    for (const input of this.serviceTargets) {
      const allowed = this.orderValue.indexOf(input.dataset.needs) <= rank;
      input.disabled = !allowed;
      if (!allowed) input.checked = false;
      input.closest("label")?.classList.toggle("is-out-of-reach", !allowed);
    }
  }
}
