// Makes an access passkey and shows what the keeper of the trust key needs. Nothing is sent.

import { toBase64 } from "./bytes.js";
import { card, el, facts, notice, show } from "./dom.js";
import { Told } from "./errors.js";
import { _ } from "./i18n.js";
import { page } from "./page.js";
import * as passkey from "./passkey.js";
import * as words from "./words.js";

const PERSON = "[A-Za-z0-9_\\-]{1,64}";

function field(name, label, hint, attributes) {
  const input = el("input", { id: name, name, required: true, "aria-describedby": `${name}-hint`,
    ...attributes });
  return [
    el("p", { class: "field" }, el("label", { for: name }, label), input,
      el("span", { class: "muted", id: `${name}-hint` }, hint)),
    input,
  ];
}

function main() {
  const [who, person] = field("person", _("User name"), _("As you sign in to the portal."), {
    pattern: PERSON, maxlength: 64, autocomplete: "username", spellcheck: "false",
    autocapitalize: "none",
  });
  const problem = el("div", {});
  const button = el("button", { class: "main" }, _("Make the passkey"));
  const form = el("form", {}, who, el("p", { class: "actions" }, button));
  form.addEventListener("submit", async (event) => {
    event.preventDefault(); // nothing is sent anywhere
    button.disabled = true;
    problem.replaceChildren();
    try {
      const name = person.value.trim();
      await made(name, await passkey.create(name, name));
    } catch (error) {
      if (!(error instanceof Told)) throw error;
      const { what, remedy } = words.failure(error);
      problem.append(notice("bad", _("Not made:"), el("p", {}, what), el("p", {}, remedy)));
    } finally {
      button.disabled = false;
    }
  });
  show(
    el("h1", {}, _("Register an access passkey")),
    el("p", { class: "lead" },
      _("With it you answer an injector's challenge in this browser. It is not the passkey that signs you in to the portal, and it works at this address alone.")),
    form,
    problem,
    el("p", { class: "muted" },
      _("Nothing is sent. What you see next goes to the keeper of the trust key, who signs it into the roster. Register two, on two devices, so that a dead one costs no night.")),
  );
}

async function made(person, { id, key }) {
  const entry = { id: toBase64(id), key: toBase64(key) };
  const line = JSON.stringify(entry);
  const digits = await passkey.fingerprint(id, key);
  const box = el("pre", { class: "copy", tabindex: "0", "aria-label": _("For the members file") }, line);
  const copied = el("span", { class: "muted", role: "status" });
  const copy = el("button", { type: "button" }, _("Copy"));
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(line);
      copied.textContent = _("Copied");
    } catch {
      getSelection().selectAllChildren(box);
      copied.textContent = _("Selected: press Ctrl+C");
    }
  });
  show(
    el("h1", {}, _("The passkey is made")),
    notice("good", _("Next:"),
      el("p", {}, _("Send the line to the keeper of the trust key, and read them the fingerprint over the telephone. They compare it before they sign; until then no injector believes this passkey."))),
    card(_("Fingerprint"),
      el("p", { class: "code digits" }, digits),
      el("p", { class: "muted" }, _("Computed here from the passkey. The keeper of the trust key sees the same before signing."))),
    card(_("For the members file"),
      el("p", {}, _("Under “passkeys” of {person}:", { person })),
      box,
      el("p", { class: "actions" }, copy, copied)),
    card(_("The passkey"), facts([
      [_("User name"), person, "mono"],
      [_("Works at"), location.origin, "mono"],
    ])),
  );
}

page(() => _("Register an access passkey"), main);
