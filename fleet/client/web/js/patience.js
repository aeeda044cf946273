// How long this end waits for the other when a pipe broke: asks again, and gives up.

export const RESUME_S = 300; // how long a stream stands still before it is given up
export const ASK_S = 5; // without an answer: ask again

/** Of one mux. `look` at least every few seconds; `now` in seconds of any clock that goes on. */
export class Patience {
  #mux;
  #waiting = new Map(); // stream: {since, last}

  constructor(mux) {
    this.#mux = mux;
  }

  /** Ask where an answer is late. Returns the streams to give up: reset them. */
  look(now, { connected }) {
    const standing = connected ? this.#mux.unanswered : this.#mux.streams;
    const fresh = { since: now, last: now };
    this.#waiting = new Map(standing.map((id) => [id, this.#waiting.get(id) ?? { ...fresh }]));
    const givenUp = [];
    for (const [stream, wait] of this.#waiting) {
      if (now - wait.since >= RESUME_S) givenUp.push(stream);
      else if (connected && now - wait.last >= ASK_S) {
        wait.last = now;
        this.#mux.ask(stream);
      }
    }
    return givenUp;
  }
}
