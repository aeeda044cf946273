import { Controller } from "../../vendor/stimulus/stimulus.js";

export default class extends Controller {
  print() {
    window.print();
  }
}
