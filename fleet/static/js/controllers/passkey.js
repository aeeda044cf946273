import { Controller } from "../../vendor/stimulus/stimulus.js";

// Asks the browser for a passkey, or to make one, and sends what it signed with the form.
// The portal's options and the answer travel as JSON, bytes in base64url.
export default class extends Controller {
  static targets = ["credential", "said"];
  static values = { options: Object, url: String, make: Boolean, failed: String };

  connect() {
    if (!window.PublicKeyCredential) this.element.hidden = true;
  }

  async use(event) {
    event.preventDefault();
    this.say("");
    try {
      const asked = (await this.options()).publicKey;
      const credential = this.makeValue
        ? await navigator.credentials.create({ publicKey: toCreate(asked) })
        : await navigator.credentials.get({ publicKey: toGet(asked) });
      this.credentialTarget.value = JSON.stringify(toJSON(credential));
    } catch {
      // Refused, out of time, or not there: the browser tells pages no more than that.
      this.say(this.failedValue);
      return;
    }
    this.element.submit();
  }

  async options() {
    if (!this.hasUrlValue) return this.optionsValue;
    const answer = await fetch(this.urlValue, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.statusText);
    return (await answer.json()).request_options;
  }

  say(text) {
    this.saidTarget.textContent = text;
    this.saidTarget.hidden = !text;
  }
}

function toCreate(asked) {
  return {
    ...asked,
    challenge: bytes(asked.challenge),
    user: { ...asked.user, id: bytes(asked.user.id) },
    excludeCredentials: (asked.excludeCredentials ?? []).map(described),
  };
}

function toGet(asked) {
  return {
    ...asked,
    challenge: bytes(asked.challenge),
    allowCredentials: (asked.allowCredentials ?? []).map(described),
  };
}

function described(credential) {
  return { ...credential, id: bytes(credential.id) };
}

function toJSON(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  if (credential.response.getTransports) response.transports = credential.response.getTransports();
  return {
    type: credential.type,
    id: credential.id,
    rawId: text(credential.rawId),
    authenticatorAttachment: credential.authenticatorAttachment,
    clientExtensionResults: credential.getClientExtensionResults(),
    response,
  };
}

function bytes(base64url) {
  const plain = atob(base64url.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

function text(buffer) {
  const plain = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
