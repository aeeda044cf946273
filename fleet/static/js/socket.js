// One websocket to /ws/live/ for the whole page; see fleet/live for the protocol.
// A lost connection comes back with full-jitter back-off. Each time the portal confirms that it
// watches a group, its listeners hear `watching` and look again: hints that were missed are gone.

const listeners = new Map(); // group -> Set of {listener, live}
const MAX_DELAY_MS = 20_000;
let socket = null;
let attempt = 0;
let timer = null;
let status = "connecting";

const wantsLive = (group) => [...(listeners.get(group) ?? [])].some((entry) => entry.live);

function setStatus(next) {
  status = next;
  document.dispatchEvent(new CustomEvent("patency:socket", { detail: { status } }));
}

export const socketStatus = () => status;

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function announce(groups) {
  const live = groups.filter(wantsLive);
  const quiet = groups.filter((group) => !wantsLive(group));
  if (live.length) send({ watch: live });
  if (quiet.length) send({ watch: quiet, live: false });
}

function open() {
  timer = null;
  if (!listeners.size || socket) return;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws/live/`);
  socket.addEventListener("open", () => {
    attempt = 0;
    setStatus("open");
    announce([...listeners.keys()]);
  });
  socket.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    // From here on nothing is missed, but something may have been: look once.
    for (const group of message.watching ?? []) tell(group, { kind: "watching", group });
    if (!message.group) return;
    tell(message.group, message);
  });
  socket.addEventListener("close", (event) => {
    socket = null;
    setStatus("closed");
    // 4401: signed out. Whatever the page shows may be stale; the next request asks to sign in.
    if (event.code === 4401) return;
    attempt += 1;
    const ceiling = Math.min(MAX_DELAY_MS, 500 * 2 ** attempt);
    timer ??= setTimeout(open, Math.random() * ceiling);
  });
}

function tell(group, message) {
  for (const { listener } of listeners.get(group) ?? []) listener(message);
}

/** Hear of `group`; `live` asks a device for its samples too. Returns a function that stops it. */
export function watch(group, listener, { live = false } = {}) {
  const entry = { listener, live };
  if (!listeners.has(group)) listeners.set(group, new Set());
  const before = wantsLive(group);
  const first = listeners.get(group).size === 0;
  listeners.get(group).add(entry);
  if (first || (live && !before)) announce([group]);
  if (!socket && !timer) timer = setTimeout(open, 0);
  return () => {
    const entries = listeners.get(group);
    if (!entries?.delete(entry)) return;
    if (!entries.size) {
      listeners.delete(group);
      send({ unwatch: [group] });
    } else if (live && !wantsLive(group)) {
      announce([group]);
    }
  };
}

window.addEventListener("pagehide", () => socket?.close());
