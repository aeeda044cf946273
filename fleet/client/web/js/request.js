// The exact bytes of an access request, as the injector received them: who asks, and for what.
// They come through the portal; what makes them believed is their digest in the challenge.

import { fromUtf8 } from "./bytes.js";
import * as schema from "./schema.js";

const REQUEST = {
  at: schema.whole(0, Number.MAX_SAFE_INTEGER),
  session: schema.hex(32),
  device: schema.deviceId,
  specialist: schema.personId,
  name: schema.printable(80),
  organisation: schema.printable(80),
  level: schema.level,
  services: schema.list(schema.service, 1, 8),
  reason: schema.oneOf("inspection", "repair", "calibration", "software", "training"),
  ticket: schema.orNull(schema.text(/^[A-Za-z0-9-]{1,32}$/)), // null: to follow
  note: schema.printable(200),
  client: schema.oneOf("command-line", "browser"),
  break_glass: schema.flag, // shown, and written down; no check is left out for it
  life_s: schema.whole(60, 8 * 3600),
};
const DEFAULTS = { note: "", client: "command-line", break_glass: false };

/** Throws SchemaError. What could be read in two ways (a field twice, say) is refused. */
export function decode(payload) {
  const read = schema.decode(payload, REQUEST, DEFAULTS);
  const text = fromUtf8(payload);
  if (JSON.stringify(JSON.parse(text)) !== text) {
    throw new schema.SchemaError("the request is not in the one spelling that it has");
  }
  return read;
}
