// Typing to a service that reads lines and echoes nothing: this end shows what is typed, lets it be
// corrected, and sends it whole.

const HISTORY = 50;
const LINE = 4000; // characters

/** Keys in, `{echo, send, end}` out: what to show, what to send, whether there is no more. */
export class Lines {
  #line = [];
  #history = [];
  #back = 0; // how far up in the history

  type(keys) {
    const out = { echo: "", send: "", end: false };
    if (keys === "\x1b[A" || keys === "\x1bOA") this.#recall(1, out);
    else if (keys === "\x1b[B" || keys === "\x1bOB") this.#recall(-1, out);
    else if (!keys.startsWith("\x1b")) for (const key of keys) this.#key(key, out);
    return out;
  }

  #key(key, out) {
    if (key === "\r" || key === "\n") this.#enter(out);
    else if (key === "\x7f" || key === "\b") {
      if (this.#line.pop() !== undefined) out.echo += "\b \b";
    } else if (key === "\x15" || key === "\x03") {
      out.echo += this.#erase();
    } else if (key === "\x04") {
      out.end = !this.#line.length;
    } else if (key >= " " && this.#line.length < LINE) {
      this.#line.push(key);
      out.echo += key;
    }
  }

  #enter(out) {
    const line = this.#line.join("");
    if (line && line !== this.#history[0]) {
      this.#history.unshift(line);
      this.#history.length = Math.min(this.#history.length, HISTORY);
    }
    this.#line = [];
    this.#back = 0;
    out.echo += "\r\n";
    out.send += `${line}\n`;
  }

  #erase() {
    const echo = "\b \b".repeat(this.#line.length);
    this.#line = [];
    return echo;
  }

  #recall(step, out) {
    const back = Math.min(this.#history.length, Math.max(0, this.#back + step));
    if (back === this.#back) return;
    this.#back = back;
    out.echo += this.#erase();
    this.#line = [...(this.#history[back - 1] ?? "")];
    out.echo += this.#line.join("");
  }
}
