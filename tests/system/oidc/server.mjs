// A real OpenID provider with its own development pages: node server.mjs CONFIG
// CONFIG is JSON: {"issuer", "port", "redirects": [URI], "people": {subject: claims}}.
import { Provider } from "oidc-provider";

const { issuer, port, redirects, people } = JSON.parse(process.argv[2]);
const provider = new Provider(issuer, {
  clients: [{ client_id: "portal", client_secret: "s3cret", redirect_uris: redirects }],
  claims: { openid: ["sub"], email: ["email", "email_verified"] },
  pkce: { required: () => true },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, ...people[id] }),
  }),
});
provider.listen(port, "127.0.0.1", () => console.log("ready"));
