import { Controller } from "../../vendor/stimulus/stimulus.js";

// Enter in a search field that stands inside a form narrows the list and does not send the form.
export default class extends Controller {
  key(event) {
    if (event.key === "Enter" && !event.isComposing) event.preventDefault();
  }
}
