// The terminal: xterm.js on one stream of the session.
//
// Two kinds of service are spoken to. `terminal` is a terminal itself: it gets keys as they are typed
// and the window's size, in pieces (pieces.js). Any other reads lines, and gets lines.

import { FitAddon } from "../vendor/xterm-addon-fit/addon-fit.js";
import { Terminal } from "../vendor/xterm/xterm.js";
import { concat, utf8 } from "./bytes.js";
import { Lines } from "./lines.js";
import * as pieces from "./pieces.js";
import { allowStylesFromCode } from "./strict_styles.js";

const MOST_TYPED = 1024 * 1024; // bytes typed or pasted that wait for credit
const READER = "patency.screen_reader";
const FONT = 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace';

allowStylesFromCode();

/**
 * `write` gets bytes to send and says how many it took. `on` hears of what the stream's owner must
 * know: the end of the input, an exit status, and keys that are for the page.
 */
export class Screen {
  #term;
  #fit = new FitAddon();
  #lines = new Lines();
  #reader = null; // of a terminal
  #typed = [];
  #write;
  #on;
  #observer;

  constructor({ service, place, write, on }) {
    this.#write = write;
    if (service === pieces.SERVICE) this.#reader = new pieces.Reader();
    this.#on = on;
    this.#term = new Terminal({
      allowProposedApi: false,
      convertEol: !this.#reader,
      fontFamily: FONT,
      fontSize: 14,
      linkHandler: { activate: () => {} }, // what an injector prints opens nothing here
      minimumContrastRatio: 4.5,
      screenReaderMode: isReader(),
      scrollback: 5000,
      theme: colours(place),
    });
    this.#term.loadAddon(this.#fit);
    this.#term.open(place);
    place.addEventListener("paste", (event) => this.#pasted(event), { capture: true });
    this.#term.textarea?.setAttribute("aria-label", on.label);
    this.#term.attachCustomKeyEventHandler((event) => this.#key(event));
    this.#term.onData((keys) => this.#data(keys));
    this.#term.onBinary((keys) => this.#keys(Uint8Array.from(keys, (key) => key.charCodeAt(0))));
    this.#fit.fit();
    this.#tellSize();
    this.#term.onResize(() => this.#tellSize());
    this.#observer = new ResizeObserver(() => this.#fit.fit());
    this.#observer.observe(place);
    const repaint = () => (this.#term.options.theme = colours(place));
    document.addEventListener("patency:theme", repaint);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  }

  focus() {
    this.#term.focus();
  }

  /** Show bytes of the service; `used` is called when they are on the screen. Throws PieceError. */
  output(data, used) {
    if (!this.#reader) {
      this.#term.write(data, used);
      return;
    }
    for (const piece of this.#reader.feed(data)) {
      if (piece.data) this.#term.write(piece.data);
      else this.#on.exited(piece.status);
    }
    this.#term.write("", used);
  }

  /** Credit came: send what waits. */
  flush() {
    while (this.#typed.length) {
      const head = this.#typed[0];
      const taken = this.#write(head);
      if (taken < head.length) {
        this.#typed[0] = head.subarray(taken);
        return;
      }
      this.#typed.shift();
    }
  }

  /** No more is taken or shown. */
  close() {
    this.#observer.disconnect();
    this.#term.options.disableStdin = true;
    this.#term.options.cursorBlink = false;
  }

  get selection() {
    return this.#term.getSelection();
  }

  /** Text from the clipboard: bracketed where the program asked for that, and never with what
   * could end the brackets before the text does. */
  paste(text) {
    this.#term.paste(text.replaceAll("\x1b", ""));
    this.focus();
  }

  #pasted(event) {
    event.preventDefault();
    event.stopPropagation();
    this.paste(event.clipboardData?.getData("text/plain") ?? "");
  }

  get isReader() {
    return this.#term.options.screenReaderMode;
  }

  /** For who hears the screen: what is printed is read out. */
  set isReader(wanted) {
    this.#term.options.screenReaderMode = wanted;
    try {
      localStorage.setItem(READER, wanted ? "1" : "0");
    } catch {
      // not remembered then
    }
  }

  // --- typing -------------------------------------------------------------------------------------

  #key(event) {
    if (event.type !== "keydown") return true;
    if (event.ctrlKey && event.key === "F6") {
      this.#on.leave(); // Tab belongs to the shell: this is the way out by keyboard
    } else if (event.ctrlKey && event.shiftKey && event.code === "KeyC") {
      this.#on.copy();
    } else return true;
    event.preventDefault();
    return false;
  }

  #data(keys) {
    if (this.#reader) {
      this.#keys(utf8(keys));
      return;
    }
    const { echo, send, end } = this.#lines.type(plain(keys));
    if (echo) this.#term.write(echo);
    if (send) this.#send(utf8(send));
    if (end) this.#on.end();
  }

  #keys(bytes) {
    this.#send(this.#reader ? pieces.data(bytes) : bytes);
  }

  #send(bytes) {
    const waiting = this.#typed.reduce((sum, each) => sum + each.length, 0);
    if (waiting + bytes.length > MOST_TYPED) {
      this.#on.tooMuch();
      return;
    }
    this.#typed = [concat(...this.#typed, bytes)];
    this.flush();
  }

  #tellSize() {
    if (this.#reader) this.#send(pieces.size(this.#term.rows, this.#term.cols));
  }
}

function isReader() {
  try {
    return localStorage.getItem(READER) === "1";
  } catch {
    return false;
  }
}

/** Pasted text as typed: without the brackets around it, which a line reader does not know. */
function plain(keys) {
  return keys.replaceAll("\x1b[200~", "").replaceAll("\x1b[201~", "");
}

/** The colours of the style sheet, as they are in the theme of this moment. */
function colours(place) {
  const { backgroundColor, color } = getComputedStyle(place);
  return {
    background: backgroundColor,
    foreground: color,
    cursor: color,
    cursorAccent: backgroundColor,
    selectionBackground: "rgba(90, 160, 185, 0.4)",
  };
}
