// The session's page: shows the challenge, has it signed, waits for approval, opens the terminal.

import { believe } from "./believe.js";
import * as challenge from "./challenge.js";
import { equal } from "./bytes.js";
import { card, el, facts, notice, show } from "./dom.js";
import { Told } from "./errors.js";
import { _, duration, language } from "./i18n.js";
import { failed, page, readConfig } from "./page.js";
import * as passkey from "./passkey.js";
import { OVER, Portal } from "./portal.js";
import { Role, derive, newKey, publicBytes } from "./seal.js";
import * as store from "./store.js";
import * as words from "./words.js";
import { work } from "./work.js";

const LOOK_MS = 1000;
const AWAY_LOOKS = 60; // looks that may fail one after another
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const sessions = new store.Sessions();

/** Take the link's ticket out of the address before anything else happens. */
function fromLink() {
  const read = new URLSearchParams(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  const link = { session: read.get("session"), ticket: read.get("ticket") };
  const fits = /^[0-9a-f]{32}$/.test(link.session) && /^[\w-]{20,100}$/.test(link.ticket);
  return fits ? link : null;
}

async function enter(link, { portal: url }) {
  if (link) {
    store.dropPass();
    const portal = new Portal({ url, language: language() });
    const pass = await portal.redeem(link.ticket);
    if (pass.session !== link.session) throw new Told("portal_strange");
    store.keepPass(pass);
    return { portal, session: pass.session };
  }
  const pass = store.readPass();
  if (!pass) throw new Told("no_link");
  const { session, token } = pass;
  return { portal: new Portal({ url, language: language(), token }), session };
}

async function main(link) {
  const config = await readConfig();
  const { portal, session } = await enter(link, config);
  await sessions.open();
  const here = { portal, session, roots: config.roots };
  const shown = await until(here, (it) => it.challenge !== null, whileOnItsWay);
  const found = await believe({ shown, session, roots: config.roots, now: new Date() });
  const kept = await answered(here, shown, found);
  await until(here, (it) => it.state === "active", (it) => waiting(it, found));
  const seal = await derive({
    privateKey: kept.pair.privateKey,
    peer: found.terms.key,
    binding: found.digest,
    session: Uint8Array.from(session.match(/../g), (byte) => parseInt(byte, 16)),
    role: Role.CLIENT,
  });
  const epoch = await sessions.takeEpoch(session);
  if (epoch === null) throw new Told("used_too_often");
  over(here, await work({ portal, session, found, serial: shown.serial, seal, epoch }));
}

/** The session once `fits` is true of it. Ends the page when the session is over. */
async function until({ portal, session }, fits, tell) {
  let told = "";
  let failures = 0;
  for (;;) {
    let shown = null;
    try {
      shown = await portal.session();
      failures = 0;
    } catch (error) {
      failures += 1;
      if (error.code !== "portal_away" || failures > AWAY_LOOKS) throw error;
    }
    if (shown && OVER.has(shown.state)) await finish({ session }, shown);
    if (shown && fits(shown)) return shown;
    if (shown && shown.state !== told) {
      told = shown.state;
      tell(shown);
    }
    await sleep(LOOK_MS);
  }
}

/** Never returns: the session is over, and its key goes. */
async function finish({ session }, shown) {
  over({ session }, shown);
  await new Promise(() => {});
}

function over({ session }, { state, reason }) {
  store.dropPass();
  sessions.forget(session);
  show(
    el("h1", {}, words.state(state)),
    notice(state === "ended" ? "note" : "warning", _("Why:"), el("p", {}, words.over(reason))),
    el("p", { class: "muted" }, _("This tab holds nothing of it any more. You can close it.")),
  );
}

// --- before the challenge -------------------------------------------------------------------------

function whileOnItsWay({ state, serial }) {
  show(
    el("h1", {}, _("Access to {serial}", { serial })),
    notice("note", _("Please wait:"), el("p", {}, words.state(state))),
  );
}

// --- the challenge --------------------------------------------------------------------------------

/** The key of an answer that was given, here and to this challenge; asks for it where there is none. */
async function answered(here, shown, found) {
  const kept = await sessions.get(here.session);
  const isMine = kept && equal(kept.challenge, shown.challenge);
  if (isMine && shown.state !== "challenged") return kept;
  if (shown.state !== "challenged") throw new Told("answered_elsewhere");
  return new Promise((resolve, reject) => {
    const sign = async (button, problem) => {
      button.disabled = true;
      problem.replaceChildren();
      try {
        resolve(await signed(here, shown, found));
      } catch (error) {
        if (error instanceof Told && error.code.startsWith("passkey_")) {
          const { what, remedy } = words.failure(error);
          problem.append(notice("bad", _("Not signed:"), el("p", {}, what), el("p", {}, remedy)));
          button.disabled = false;
        } else reject(error);
      }
    };
    offer(here, shown, found, sign);
  });
}

async function signed({ portal, session }, shown, { terms }) {
  // The same key for the same challenge: an answer that is sent again is the same answer.
  let kept = await sessions.get(session);
  if (!kept || !equal(kept.challenge, shown.challenge)) {
    const pair = await newKey().catch(() => {
      throw new Told("no_exchange");
    });
    const mine = await publicBytes(pair);
    kept = { session, challenge: shown.challenge, pair, public: mine, epoch: 0, at: Date.now() };
    await sessions.save(kept);
  }
  const toSign = await challenge.toSign(shown.challenge, kept.public);
  const proof = await passkey.sign(toSign, terms.specialist);
  await portal.answer(kept.public, proof);
  return kept;
}

function offer({ session }, shown, found, sign) {
  const button = el("button", { type: "button", class: "main" }, _("Sign with your passkey"));
  const problem = el("div", {});
  button.addEventListener("click", () => sign(button, problem));
  show(
    el("h1", {}, _("The injector asks who you are")),
    el(
      "p",
      { class: "lead" },
      _("These are the injector's own words, signed by it; the portal could not change them. Sign only if they are what you asked for."),
    ),
    found.asked.break_glass ? breakGlass() : null,
    el(
      "div",
      { class: "columns" },
      card(_("What you sign"), whatIsAsked(found)),
      el("div", { class: "stack" }, codeCard(found), card(_("The injector"), theInjector(shown, found))),
    ),
    problem,
    el("p", { class: "actions" }, button),
    el("p", { class: "muted" }, _("Session"), " ", el("span", { class: "mono" }, session)),
  );
}

function breakGlass() {
  const text = _("This was asked for as an emergency. It is written down loudly on both sides, and no check at the injector is left out for it.");
  return notice("warning", _("Break-glass:"), el("p", {}, text));
}

function whatIsAsked({ terms, asked }) {
  return facts([
    [_("Who"), `${asked.name} (${terms.specialist})`],
    [_("Of"), asked.organisation],
    [_("Level"), words.level(terms.level)],
    [_("Services"), terms.services.join(", "), "mono"],
    [_("For"), duration(terms.life_s)],
    [_("Reason"), words.reason(asked.reason)],
    [_("Ticket"), asked.ticket ?? _("to follow")],
    [_("Note"), asked.note],
    [
      _("On site"),
      terms.presence
        ? _("A person at the injector must approve.")
        : _("Nobody at the injector is asked at this level."),
    ],
  ]);
}

function theInjector({ serial }, { terms, notAfter }) {
  const date = new Intl.DateTimeFormat(language() === "en" ? "en-CA" : language(), {
    dateStyle: "medium",
  });
  return facts([
    [_("Device id"), terms.device, "mono"],
    [_("Certificate"), _("leads to the device root; good until {date}", { date: date.format(notAfter) })],
    [_("Serial number, as the portal says"), serial, "mono"],
  ]);
}

function codeCard({ code, terms }) {
  return card(
    _("Code to compare"),
    el("p", { class: "code" }, code),
    el(
      "p",
      { class: "muted" },
      terms.presence
        ? _("This browser computed it from the challenge. The panel at the injector must show the same; compare it by telephone.")
        : _("This browser computed it from the challenge, as the injector does."),
    ),
  );
}

// --- after it -------------------------------------------------------------------------------------

function waiting({ state, serial }, found) {
  show(
    el("h1", {}, _("Access to {serial}", { serial })),
    notice("note", _("Please wait:"), el("p", {}, words.state(state))),
    el("div", { class: "columns" }, codeCard(found), card(_("What you signed"), whatIsAsked(found))),
  );
}

const link = fromLink();
addEventListener("hashchange", () => location.reload()); // another link in the same tab
page(() => _("Access"), () => main(link).catch(failed));
