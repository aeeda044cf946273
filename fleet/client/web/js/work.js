// The open session: a terminal, what is left of the time, and the way out.

import { Carrier } from "./carrier.js";
import { el, notice, show } from "./dom.js";
import { Told } from "./errors.js";
import { _, duration } from "./i18n.js";
import { Kind } from "./mux_events.js";
import { PieceError } from "./pieces.js";
import { OVER } from "./portal.js";
import { Screen } from "./terminal.js";
import * as words from "./words.js";

// Services that a terminal can show; what else a session has is for the command line.
const TERMINALS = ["terminal", "console"];
const REFUSALS = { 4401: "pass_refused", 4403: "not_mine", 4404: "not_mine", 4429: "too_many" };
const OPEN_MS = 15_000; // for the injector to accept a stream
const TICK_MS = 1000;

/** Until the session is over: how it ended, {state, reason}. Throws Told. */
export function work(given) {
  return new Work(given).run();
}

class Work {
  #given;
  #carrier;
  #screen = null;
  #stream = null;
  #parts;
  #ended = null;
  #last = null; // the last words of a shell
  #end = Date.now();

  constructor(given) {
    this.#given = given;
    const { seal, epoch, portal, session, found } = given;
    this.#end += found.terms.life_s * 1000;
    this.#carrier = new Carrier({
      seal,
      epoch,
      connect: () => portal.stream(session),
      onEvent: (event) => this.#heard(event),
    });
  }

  async run() {
    const { services } = this.#given.found.terms;
    const choices = TERMINALS.filter((name) => services.includes(name));
    if (!choices.length) throw new Told("no_terminal");
    this.#parts = this.#draw(choices);
    const timer = setInterval(() => this.#tick(), TICK_MS);
    this.#tick();
    this.#open(choices[0]);
    try {
      await this.#carrier.hold({
        onLink: (isThere) => this.#link(isThere),
        judge: (code, isTooLong) => this.#judge(code, isTooLong),
      });
    } finally {
      clearInterval(timer);
      this.#screen?.close();
    }
    return this.#ended;
  }

  // --- the link -----------------------------------------------------------------------------------

  /** Stops when the session is over; throws Told when this page may not go on. */
  async #judge(code, isTooLong) {
    if (await this.#isOver()) return;
    if (code in REFUSALS) throw new Told(REFUSALS[code]);
    if (isTooLong) throw new Told("lost");
  }

  async #isOver() {
    let shown;
    try {
      shown = await this.#given.portal.session();
    } catch (error) {
      if (error.code === "portal_away") return false; // the link is tried again
      throw error;
    }
    if (OVER.has(shown.state)) this.#finish(shown);
    return OVER.has(shown.state);
  }

  #finish(shown) {
    this.#ended = shown;
    this.#carrier.stop();
  }

  #link(isThere) {
    const { link } = this.#parts;
    link.className = isThere ? "link good" : "link bad";
    link.textContent = isThere
      ? _("Connected")
      : _("Connection lost. Connecting again; nothing typed is lost.");
  }

  #tick() {
    const left = Math.max(0, Math.round((this.#end - Date.now()) / 1000));
    this.#parts.left.textContent = _("{time} left", { time: duration(left > 90 ? left - (left % 60) : left) });
  }

  // --- the stream ---------------------------------------------------------------------------------

  #open(service) {
    this.#screen?.close();
    this.#parts.place.replaceChildren();
    this.#parts.problem.replaceChildren();
    this.#last = null;
    this.#stream = null; // until there is one, what is typed waits
    this.#screen = new Screen({
      service,
      place: this.#parts.place,
      write: (bytes) => this.#write(bytes),
      on: {
        label: _("Terminal of {service}", { service }),
        leave: () => this.#parts.end.focus(),
        copy: () => this.#copy(),
        end: () => this.#carrier.end(this.#stream),
        exited: (status) => (this.#last = _("The shell has ended, with status {status}.", { status })),
        tooMuch: () => this.#tell("warning", _("Not sent:"), _("That is too much at once. Send a file another way.")),
      },
    });
    this.#stream = this.#carrier.open(service);
    const stream = this.#stream;
    setTimeout(() => {
      if (this.#stream !== stream || this.#parts.place.dataset.open) return;
      this.#carrier.reset(stream);
      this.#closed(_("The injector did not answer in time."));
    }, OPEN_MS);
    this.#screen.focus();
  }

  #write(bytes) {
    const size = Math.min(bytes.length, this.#carrier.writable(this.#stream));
    if (size) this.#carrier.send(this.#stream, bytes.subarray(0, size));
    return size;
  }

  #heard(event) {
    if (event.stream !== this.#stream) return;
    const { place } = this.#parts;
    if (event.kind === Kind.ACCEPTED) place.dataset.open = "yes";
    if (event.kind === Kind.ACCEPTED || event.kind === Kind.CREDITED) this.#screen.flush();
    if (event.kind === Kind.DATA) {
      this.#output(event);
    }
    if (event.kind === Kind.ENDED) {
      this.#carrier.end(this.#stream);
      this.#closed(this.#last ?? _("The service has ended."));
    }
    if (event.kind === Kind.RESET) this.#closed(words.reset(event.code));
  }

  #output({ stream, data }) {
    try {
      this.#screen.output(data, () => this.#carrier.used(stream, data.length));
    } catch (error) {
      if (!(error instanceof PieceError)) throw error;
      this.#carrier.reset(stream);
      this.#closed(_("What the injector's terminal sent cannot be read."));
    }
  }

  #closed(why) {
    this.#stream = null;
    delete this.#parts.place.dataset.open;
    this.#screen.close();
    const again = el("button", { type: "button", class: "main" }, _("Open it again"));
    again.addEventListener("click", () => this.#open(this.#parts.chosen()));
    this.#tell("warning", _("Closed:"), why, again);
    // The session may be over as well, and then its end says more.
    this.#isOver().catch(() => {}); // and if it cannot be asked, the link will find out
  }

  #tell(kind, word, text, ...more) {
    this.#parts.problem.replaceChildren(notice(kind, word, el("p", {}, text), ...more));
  }

  // --- the page -----------------------------------------------------------------------------------

  #draw(choices) {
    const { serial, found } = this.#given;
    const left = el("span", { class: "left" });
    const link = el("span", { class: "link", role: "status" }, _("Connecting"));
    const end = el("button", { type: "button", class: "stop" }, _("End session"));
    const sure = this.#sure();
    end.addEventListener("click", () => sure.showModal());
    const place = el("div", { class: "screen" });
    const problem = el("div", { "aria-live": "polite" });
    const choose = el("select", { "aria-label": _("Service to open") });
    choose.append(...choices.map((name) => el("option", { value: name }, name)));
    choose.addEventListener("change", () => {
      if (this.#stream !== null) this.#carrier.reset(this.#stream);
      delete place.dataset.open;
      this.#open(choose.value);
    });
    show(
      el("div", { class: "workbar" },
        el("h1", {}, _("Access to {serial}", { serial })),
        el("span", { class: "mono muted" }, found.terms.device),
        link, left, choices.length > 1 ? choose : null, end),
      problem,
      place,
      el("div", { class: "workbar below" },
        this.#button(_("Copy"), () => this.#copy()),
        this.#button(_("Paste"), () => this.#paste()),
        this.#readerSwitch(),
        el("span", { class: "muted" }, _("Ctrl+F6 leaves the terminal; Ctrl+Shift+C and Ctrl+Shift+V copy and paste."))),
      sure,
    );
    document.body.classList.add("working");
    return { left, link, end, place, problem, chosen: () => choose.value };
  }

  #button(text, onclick) {
    return el("button", { type: "button", onclick }, text);
  }

  #readerSwitch() {
    const box = el("input", { type: "checkbox" });
    box.addEventListener("change", () => (this.#screen.isReader = box.checked));
    queueMicrotask(() => (box.checked = this.#screen?.isReader ?? false));
    return el("label", {}, box, " ", _("Screen reader"));
  }

  /** The dialog before the end. */
  #sure() {
    const yes = this.#button(_("End it now"), () => this.#endIt(dialog));
    yes.className = "stop";
    const dialog = el("dialog", { "aria-labelledby": "sure" },
      el("h2", { id: "sure" }, _("End session")),
      el("p", {}, _("The tunnel closes at once, and a new session needs a new request.")),
      el("p", { class: "actions" }, yes, this.#button(_("Go on working"), () => dialog.close())));
    return dialog;
  }

  async #endIt(dialog) {
    dialog.close();
    try {
      this.#finish(await this.#given.portal.end());
    } catch (error) {
      const { what, remedy } = words.failure(error);
      this.#tell("bad", _("Not ended:"), `${what} ${remedy}`);
    }
  }

  async #copy() {
    const text = this.#screen.selection;
    if (text) await navigator.clipboard.writeText(text).catch(() => this.#noClipboard());
    this.#screen.focus();
  }

  async #paste() {
    const text = await navigator.clipboard.readText().catch(() => null);
    if (text === null) this.#noClipboard();
    else if (text) this.#screen.paste(text);
  }

  #noClipboard() {
    this.#tell("warning", _("Clipboard:"), _("The browser does not let this page use the clipboard. Use the keys."));
  }
}
