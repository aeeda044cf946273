import { Controller } from "../../vendor/stimulus/stimulus.js";

// A <details> menu that closes on Escape, on a click elsewhere and when the focus leaves it.
export default class extends Controller {
  connect() {
    this.outside = (event) => {
      if (!this.element.contains(event.target)) this.element.open = false;
    };
    document.addEventListener("click", this.outside);
  }

  disconnect() {
    document.removeEventListener("click", this.outside);
  }

  key(event) {
    if (event.key !== "Escape" || !this.element.open) return;
    this.element.open = false;
    this.element.querySelector("summary").focus();
  }

  leave(event) {
    if (event.relatedTarget && !this.element.contains(event.relatedTarget)) this.element.open = false;
  }
}
