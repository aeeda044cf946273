// Streams over a websocket: moves bytes between a Mux and the browser, and nothing else.
//
// A Carrier outlives its websocket: when one breaks, its streams stand still until the next one is
// there and go on there; one whose end at the injector does not answer is given up in the end. A
// browser does not say whether a silent websocket is alive, so a stream is asked (RESUME) when the
// injector has been silent for a while: only its other end can answer that.

import { MAX_FRAME, FrameError, parse } from "./frames.js";
import { Mux } from "./mux.js";
import { Kind, LocalError, MuxError, ResetCode } from "./mux_events.js";
import { Patience, RESUME_S } from "./patience.js";
import { SealError } from "./seal.js";

const MOST_BUFFERED = 256 * 1024; // bytes in the browser's own queue
const MOST_WAITING = 2048; // frames that arrived and are not yet opened; credit allows fewer
const LOOK_MS = 1000;
const QUIET_S = 10; // then a stream is asked whether its end is there
const SILENT_S = 25; // then the websocket is given up
const STEADY_S = 5; // a connection that lasted so long counts as good
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5000;
const COUNT_BITS = 16;
const OPEN_MS = 10_000; // for a websocket to open
const GIVEN_UP = 4000; // close code for a websocket that this side gives up

const seconds = () => performance.now() / 1000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Carrier {
  #seal;
  #connect;
  #onEvent;
  #mux;
  #patience;
  #socket = null;
  #epoch;
  #count = 0;
  #inbox = [];
  #opening = false;
  #pumping = false;
  #heardAt = seconds();
  #stopped = false;
  #cutPause = () => {};
  #giveUp = () => {};

  /** `connect` makes a websocket; `onEvent` is told what the mux says. */
  constructor({ seal, epoch, connect, onEvent }) {
    this.#seal = seal;
    this.#epoch = epoch;
    this.#connect = connect;
    this.#onEvent = onEvent;
    this.#mux = new Mux({ session: seal.session });
    this.#patience = new Patience(this.#mux);
  }

  // --- streams ------------------------------------------------------------------------------------

  /** Ask for a service. Returns the stream's number; throws LocalError when that cannot be. */
  open(service) {
    this.#count += 1;
    if (this.#count >= 2 ** COUNT_BITS) throw new LocalError("too many streams");
    const stream = this.#epoch * 2 ** COUNT_BITS + this.#count;
    this.#mux.open(stream, service);
    this.#pump();
    return stream;
  }

  writable(stream) {
    return this.#mux.writable(stream);
  }

  send(stream, data) {
    this.#mux.send(stream, data);
    this.#pump();
  }

  used(stream, size) {
    this.#mux.consumed(stream, size);
    this.#pump();
  }

  end(stream) {
    this.#mux.end(stream);
    this.#pump();
  }

  reset(stream) {
    this.#mux.reset(stream);
    this.#pump();
  }

  // --- the link -----------------------------------------------------------------------------------

  /**
   * Hold the websocket and make it again when it breaks, until stop(). `onLink(true or false)` says
   * whether it is there; `judge(code)` throws when it makes no sense to go on, and that is thrown.
   */
  async hold({ onLink, judge }) {
    const timer = setInterval(() => this.#look(), LOOK_MS);
    const retry = () => this.#cutPause();
    addEventListener("online", retry);
    let pause = FIRST_PAUSE_MS;
    let goodAt = seconds();
    try {
      while (!this.#stopped) {
        const started = seconds();
        const code = await this.#attach(onLink);
        if (this.#stopped) return;
        onLink(false);
        if (seconds() - started > STEADY_S) {
          pause = FIRST_PAUSE_MS;
          goodAt = seconds();
        }
        await judge(code, seconds() - goodAt > RESUME_S);
        await Promise.race([
          sleep(pause * (0.5 + Math.random() / 2)),
          new Promise((resolve) => (this.#cutPause = resolve)),
        ]);
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      }
    } finally {
      clearInterval(timer);
      removeEventListener("online", retry);
      this.stop();
    }
  }

  stop() {
    this.#stopped = true;
    this.#giveUp(); // at once: a websocket that is being made, or closes slowly, holds nobody up
    this.#cutPause();
  }

  /** One websocket, from its making to its end. Resolves to its close code. */
  #attach(onLink) {
    return new Promise((resolve) => {
      const socket = this.#connect();
      this.#inbox = [];
      this.#heardAt = seconds();
      const over = (code) => {
        if (this.#socket === socket) this.#socket = null;
        resolve(code);
      };
      const limit = setTimeout(() => {
        socket.close(GIVEN_UP);
        over(GIVEN_UP);
      }, OPEN_MS);
      socket.onopen = () => {
        clearTimeout(limit);
        this.#socket = socket;
        this.#heardAt = seconds();
        this.#mux.resume();
        onLink(true);
        this.#pump();
      };
      socket.onmessage = ({ data }) => this.#arrived(socket, data);
      socket.onclose = ({ code }) => {
        clearTimeout(limit);
        over(code);
      };
      this.#giveUp = () => {
        socket.close(GIVEN_UP);
        over(GIVEN_UP);
      };
    });
  }

  // --- in -----------------------------------------------------------------------------------------

  #arrived(socket, data) {
    if (socket !== this.#socket || !(data instanceof ArrayBuffer)) return;
    if (data.byteLength > MAX_FRAME || this.#inbox.length >= MOST_WAITING) {
      this.#giveUp(); // nothing is lost: what is missing is asked for on the next one
      return;
    }
    this.#heardAt = seconds();
    this.#inbox.push(new Uint8Array(data));
    this.#openAll();
  }

  /** Open what arrived, one after another: opening takes turns with the rest of the page. */
  async #openAll() {
    if (this.#opening) return;
    this.#opening = true;
    try {
      while (this.#inbox.length) {
        for (const event of await this.#openOne(this.#inbox.shift())) this.#onEvent(event);
        this.#pump();
      }
    } finally {
      this.#opening = false;
    }
  }

  async #openOne(frame) {
    try {
      if (!this.#mux.wants(parse(frame))) return [];
      const { header, payload } = await this.#seal.open(frame);
      return this.#mux.receive(header, payload);
    } catch (error) {
      // Not from the injector, or bent on the way: as if it had not come.
      if ([FrameError, SealError, MuxError].some((kind) => error instanceof kind)) return [];
      throw error;
    }
  }

  // --- out ----------------------------------------------------------------------------------------

  async #pump() {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      for (let socket; (socket = this.#socket); ) {
        if (socket.bufferedAmount > MOST_BUFFERED) {
          await sleep(5);
          continue;
        }
        const out = this.#mux.nextFrame();
        if (!out) return;
        const frame = await out.seal(this.#seal);
        // Taken out but not sent: lost with the pipe, and asked for on the next one.
        if (socket === this.#socket && socket.readyState === WebSocket.OPEN) socket.send(frame);
      }
    } finally {
      this.#pumping = false;
    }
  }

  #look() {
    const connected = this.#socket !== null;
    for (const stream of this.#patience.look(seconds(), { connected })) {
      this.#mux.reset(stream, ResetCode.GAP);
      this.#onEvent({ kind: Kind.RESET, stream, code: ResetCode.GAP, byPeer: false });
    }
    if (connected) this.#listen();
    this.#pump();
  }

  #listen() {
    const quiet = seconds() - this.#heardAt;
    const [stream] = this.#mux.streams;
    if (stream === undefined) return;
    if (quiet > SILENT_S) this.#giveUp();
    else if (quiet > QUIET_S && !this.#mux.unanswered.length) this.#mux.ask(stream);
  }
}
