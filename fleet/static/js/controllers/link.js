import { Controller } from "../../vendor/stimulus/stimulus.js";
import { socketStatus } from "../socket.js";

// Says whether the page is live. Hidden until something on the page asks to be.
export default class extends Controller {
  static targets = ["text"];
  static values = { open: String, closed: String };

  connect() {
    this.listener = () => this.show();
    document.addEventListener("patency:socket", this.listener);
    this.show();
  }

  disconnect() {
    document.removeEventListener("patency:socket", this.listener);
  }

  show() {
    const status = socketStatus();
    this.element.hidden = status === "connecting";
    this.element.dataset.status = status;
    const text = status === "open" ? this.openValue : this.closedValue;
    if (this.textTarget.textContent !== text) this.textTarget.textContent = text;
    // That a page begins to be live goes without saying; that it stops, and is again, does not.
    if (status === "open") setTimeout(() => this.textTarget.setAttribute("role", "status"), 500);
  }
}
