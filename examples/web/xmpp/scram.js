// The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding: a page cannot see its TLS.

import { hmac, pbkdf2, sha256 } from "./sha256.js";

const encoder = new TextEncoder();
const utf8 = (text) => encoder.encode(text);
const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));
const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const xor = (a, b) => a.map((byte, at) => byte ^ b[at]);

const GS2 = "n,,";
// Fewer make a stolen exchange cheap to guess (RFC 7677 §4); more would stop the page.
const ITERATIONS = { least: 4096, most: 2_000_000 };

export class ScramError extends Error {
  name = "ScramError";
}

/// SASLprep (RFC 4013) as far as a page needs it: servers refuse what else it would refuse.
const prepared = (text) =>
  text.replace(/[\u00A0\u1680\u2000-\u200B\u202F\u205F\u3000]/g, " ")
    .replace(/[\u00AD\u034F\u1806\u180B-\u180D\u2060\uFE00-\uFE0F\uFEFF]/g, "").normalize("NFKC");

const fields = (message) => new Map(message.split(",").map((field) => [field[0], field.slice(2)]));

/// One exchange. `secret` is `{ password }`, or the `keys` that an earlier exchange has made of it: enough to log
/// in at this one server, and no password.
export class Scram {
  static mechanism = "SCRAM-SHA-256";

  #user;
  #secret;
  #nonce;
  #serverSignature;
  keys = null;

  constructor(user, secret, nonce = toBase64(crypto.getRandomValues(new Uint8Array(18)))) {
    this.#user = user.normalize("NFKC").replaceAll("=", "=3D").replaceAll(",", "=2C");
    this.#secret = secret;
    this.#nonce = nonce;
  }

  get #firstBare() {
    return `n=${this.#user},r=${this.#nonce}`;
  }

  first() {
    return GS2 + this.#firstBare;
  }

  /// Answers the server's challenge.
  final(challenge) {
    const { r: nonce, s: salt, i, m: extension } = Object.fromEntries(fields(challenge));
    const iterations = Number(i);
    if (extension !== undefined || !salt || !nonce?.startsWith(this.#nonce) || nonce === this.#nonce) {
      throw new ScramError("the server's challenge is not an answer to what was asked");
    }
    if (!(iterations >= ITERATIONS.least && iterations <= ITERATIONS.most)) {
      throw new ScramError(`the server wants ${i} rounds of hashing`);
    }
    this.keys = this.#derive(salt, iterations);
    const clientKey = fromBase64(this.keys.client);
    const withoutProof = `c=${btoa(GS2)},r=${nonce}`;
    const signed = utf8(`${this.#firstBare},${challenge},${withoutProof}`);
    const proof = xor(clientKey, hmac(sha256(clientKey), signed));
    this.#serverSignature = toBase64(hmac(fromBase64(this.keys.server), signed));
    return `${withoutProof},p=${toBase64(proof)}`;
  }

  #derive(salt, iterations) {
    const { keys, password } = this.#secret;
    if (keys?.salt === salt && keys.iterations === iterations) return keys;
    if (password === undefined) throw new ScramError("the password is needed");
    const salted = pbkdf2(utf8(prepared(password)), fromBase64(salt), iterations);
    const key = (name) => toBase64(hmac(salted, utf8(name)));
    return { salt, iterations, client: key("Client Key"), server: key("Server Key") };
  }

  /// Only who knows the keys can sign: checks that this is the server where the account is.
  verify(final) {
    if (this.#serverSignature === undefined || fields(final).get("v") !== this.#serverSignature) {
      throw new ScramError("the server could not prove that it knows this account");
    }
  }
}
