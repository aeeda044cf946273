// Codes in plain words, with what to do next.

import { _ } from "./i18n.js";
import { ResetCode } from "./mux_events.js";

export function state(code) {
  return {
    requested: _("The request is on its way to the injector."),
    accepted: _("The injector has the request and prepares its challenge."),
    waiting: _("The injector is in use. The request waits there until it is free."),
    challenged: _("The injector waits for your signature."),
    presence: _("A person at the injector is asked."),
    active: _("The session is active."),
    refused: _("The session is refused."),
    expired: _("The session is expired."),
    ended: _("The session is over."),
  }[code];
}

export function level(code) {
  return {
    diagnostics: _("Diagnostics: read only"),
    service: _("Service"),
    os: _("Operating system"),
  }[code];
}

export function reason(code) {
  return {
    inspection: _("Inspection"),
    repair: _("Repair"),
    calibration: _("Calibration"),
    software: _("Software"),
    training: _("Training"),
  }[code];
}

/** Why a session is over. A code of a later version is shown as it is. */
export function over(code) {
  if (!code) return "";
  return (
    {
      in_use: _("The injector is in use. Wait until the examination is over."),
      policy: _("The site's policy does not allow it. Talk to the hospital."),
      remote_off: _("Remote connection is switched off at the injector. Only the hospital can switch it on, at the panel."),
      not_rostered: _("You are not on the injector's roster, or with another passkey. Ask the keeper of the trust key to sign your passkey in."),
      roster_expired: _("The injector's roster has expired. Ask the keeper of the trust key to sign a new one."),
      out_of_scope: _("You may not work on this product line or level."),
      untrained: _("Your vetting or training has ended. Have it renewed, then signed into the roster."),
      not_entitled: _("The injector's entitlement does not cover this. Talk to your administrator."),
      command_line_only: _("The site takes no answer from a browser for this. Use the command line."),
      unknown_service: _("The injector has no such service."),
      level_too_low: _("A service needs a higher level."),
      bad_signature: _("The injector does not accept the signature. Check that this passkey is on the roster."),
      replayed: _("The answer was sent before. Make a new request."),
      late: _("The answer came too late. Make a new request."),
      wrong_device: _("The answer was for another injector. Make a new request."),
      unknown_session: _("The injector does not know this session. Make a new request."),
      busy: _("The injector has another session. Try again when it has ended."),
      patient_on_table: _("Not now: a patient is on the table. Ask again later."),
      refused_at_panel: _("A person at the injector refused. Telephone before asking."),
      pin_locked: _("Too many wrong PINs at the injector. The hospital must wait or set a new one."),
      audit_unwritable: _("The injector cannot write its audit record."),
      recorder_failed: _("The injector cannot record the session, so it ended it."),
      no_approval: _("Nobody at the injector approved in time. Telephone and ask again."),
      four_eyes: _("One person at the injector approved, and no second one in time. Ask again."),
      no_answer: _("The challenge was not signed in time. Make a new request."),
      unreachable: _("The injector could not be reached in time."),
      life_over: _("The agreed time is over."),
      idle: _("Nothing happened for too long."),
      ended_by_specialist: _("You ended it."),
      ended_by_portal: _("An administrator of the portal ended it."),
      ended_by_hospital: _("The hospital ended it."),
      stopped_at_panel: _("It was stopped at the injector's panel."),
      presence_not_renewed: _("Presence at the injector was not renewed."),
      became_in_use: _("The injector came into use."),
      agent_restarted: _("The injector's agent restarted. Make a new request."),
    }[code] ?? code
  );
}

/** Why a stream was cut. */
export function reset(code) {
  const said = {
    [ResetCode.CANCELLED]: _("The injector closed the connection."),
    [ResetCode.REFUSED]: _("The session does not cover this service."),
    [ResetCode.UNREACHABLE]: _("Nothing listens for this service at the injector."),
    [ResetCode.BUSY]: _("Too many connections at once. Close one and try again."),
    [ResetCode.GAP]: _("The connection was away for too long. Connect again."),
    [ResetCode.SESSION_OVER]: _("The session is over."),
  };
  return said[code] ?? _("The connection was cut (code {code}).", { code });
}

const NOT_BELIEVED = () => ({
  unreadable: _("The injector's certificates cannot be read."),
  wrong_kind: _("The injector's certificate is of the wrong kind."),
  names_no_device: _("The injector's certificate names no injector."),
  not_from_root: _("The injector's certificate does not lead to this client's device root."),
  out_of_date: _("The injector's certificate is out of date, or this computer's clock is wrong."),
  bad_signature: _("The challenge is not signed by the injector."),
  challenge_form: _("The challenge is not in the form that this client knows."),
  request_form: _("The request is not in the form that this client knows."),
  other_session: _("The challenge is for another session."),
  other_request: _("The injector received another request than the portal shows."),
  other_device: _("The challenge is from another injector than the one asked for."),
  other_terms: _("The challenge has other terms than the request."),
  changed: _("The portal shows another challenge than the one that you saw."),
});

const FAILURES = ({ detail, owner, specialist }) => ({
  no_link: [_("This page was opened without a session."), _("Open it from the session's page in the portal, with “Open in the browser”.")],
  not_secure: [_("This page did not come over an encrypted connection."), _("Open it with https.")],
  no_passkeys: [_("This browser knows no passkeys."), _("Use a current Chrome, Edge, Firefox or Safari, or the command line.")],
  no_exchange: [_("This browser cannot make the session's key (X25519)."), _("Use a current Chrome, Edge, Firefox or Safari, or the command line.")],
  no_config: [_("This client's config.json is missing or cannot be read."), _("Tell whoever keeps this access origin; docs/browser.md says how to make it.")],
  portal_away: [_("The portal does not answer."), _("Check the network, then load this page again.")],
  portal_strange: [_("The portal's answer cannot be read."), _("Tell device support; a newer client may be needed.")],
  portal_declined: [detail || _("The portal refused."), _("Go back to the session's page in the portal.")],
  pass_refused: [detail || _("The portal does not accept this link."), _("A link works once, for five minutes. Open the session's page in the portal and take a new one. If you did not use this one yourself, end the session and tell cybersecurity support.")],
  passkey_not_given: [_("No passkey was given: it was cancelled, took too long, or none of this origin is here."), _("Try again with the device that holds your access passkey. If you have none, register one first.")],
  passkey_there_already: [_("This device holds an access passkey of yours already."), _("Use it, or register one on another device.")],
  passkey_kind: [_("This device makes no passkey of a kind that injectors know."), _("Use another device or security key: one that knows ES256 or Ed25519.")],
  passkey_failed: [_("The browser could not use a passkey ({detail}).", { detail }), _("Try again, or use the command line.")],
  passkey_unverified: [_("The device did not verify who you are."), _("Set a PIN, a fingerprint or a face on it, then try again.")],
  passkey_of_another: [_("This passkey is of {owner}, and {specialist} asked for the session.", { owner, specialist }), _("Use a passkey of {specialist}. Nothing was sent.", { specialist })],
  answered_elsewhere: [_("The challenge was answered elsewhere."), _("Go on where it was answered, or end the session in the portal and ask again.")],
  no_terminal: [_("The session has no service that a terminal can show."), _("Use the command line: patency forward.")],
  used_too_often: [_("The session was opened too often."), _("Make a new request.")],
  not_mine: [_("Only the specialist who asked for the session may use it."), _("Sign in to the portal as that person.")],
  too_many: [_("The session is open in too many places at once."), _("Close one of them, then load this page again.")],
  lost: [_("The connection was away for too long."), _("The session may still be active: load this page again.")],
});

/** {what, remedy} of an error that ends what the page does. */
export function failure(error) {
  const untold = NOT_BELIEVED()[error.code];
  if (untold) {
    const remedy = _("Nothing was signed. Report this to cybersecurity support before you try again.");
    return { what: untold, remedy };
  }
  const [what, remedy] = FAILURES(error.details ?? {})[error.code] ?? [
    _("Something unexpected happened in this page."),
    _("Load it again. If it stays, tell device support, and use the command line."),
  ];
  return { what, remedy };
}
