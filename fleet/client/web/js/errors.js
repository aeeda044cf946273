// What a person is told: an error carries a code, and words.js has the sentence with the remedy.

/** An end of what this page does, or of one try. `code` is a key of words.js. */
export class Told extends Error {
  constructor(code, details = {}) {
    super(code);
    this.code = code;
    this.details = details;
  }
}
