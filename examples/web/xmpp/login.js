// Who the user is (SASL, RFC 6120 §6).

import { NS, child, children, condition, el, is } from "./xml.js";
import { Scram, ScramError } from "./scram.js";

/// The server does not let the user in.
export class LoginError extends Error {
  name = "LoginError";

  constructor({ condition, text }) {
    super(text ?? condition);
    this.condition = condition;
    this.text = text;
  }
}

const encode = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
const decode = (text) => new TextDecoder().decode(Uint8Array.from(atob(text.trim()), (char) => char.charCodeAt(0)));

/// Logs in, and returns the secret to log in with the next time: with the `keys` of this server, where it has them.
export async function login(stream, features, user, secret) {
  const offered = child(features, "mechanisms", NS.sasl);
  const names = offered ? children(offered, "mechanism", NS.sasl).map((name) => name.textContent.trim()) : [];
  if (names.includes(Scram.mechanism)) return scram(stream, user, secret);
  // In the clear only where nobody can listen.
  if (names.includes("PLAIN") && isSecureContext && secret.password !== undefined) {
    await answer(stream, auth("PLAIN", `\0${user}\0${secret.password}`));
    return secret;
  }
  throw new LoginError({ condition: "no-mechanism", text: names.join(", ") });
}

const auth = (mechanism, text) => el("auth", { xmlns: NS.sasl, mechanism }, encode(text));

async function scram(stream, user, secret) {
  const exchange = new Scram(user, secret);
  try {
    const challenge = await answer(stream, auth(Scram.mechanism, exchange.first()));
    const response = exchange.final(decode(challenge.textContent));
    const success = await answer(stream, el("response", { xmlns: NS.sasl }, encode(response)));
    exchange.verify(decode(success.textContent));
    if (!is(success, "success", NS.sasl)) await answer(stream, el("response", { xmlns: NS.sasl }));
  } catch (error) {
    if (error instanceof ScramError) throw new LoginError({ condition: "mutual", text: error.message });
    throw error;
  }
  return { ...secret, keys: exchange.keys };
}

async function answer(stream, element) {
  stream.send(element);
  const reply = await stream.receive();
  if (is(reply, "failure", NS.sasl)) throw new LoginError(condition(reply, NS.sasl));
  return reply;
}
