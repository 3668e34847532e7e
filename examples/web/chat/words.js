// What went wrong, and what would be right, in plain words.

import { LoginError } from "../xmpp/login.js";
import { Disconnected, StreamError } from "../xmpp/stream.js";

const said = (text) => (text ? ` The server says: “${text}”` : "");
const thousands = (n) => n.toLocaleString("en");

// Conditions are what others send: none is one of the names that every object has.
const LOGIN = {
  __proto__: null,
  "not-authorized": "The address or the password is wrong.",
  "account-disabled": "This account is disabled. Ask who runs the server.",
  "credentials-expired": "The password has expired. Ask who runs the server for a new one.",
  "encryption-required": "The server lets nobody in without encryption. Open this page with https://.",
  "temporary-auth-failure": "The server cannot check passwords at the moment. Try again a little later.",
  "policy-violation": "Too many attempts. Wait a little and try again.",
  "resource-constraint": "This account has too many sessions. Log out elsewhere and try again.",
};

const STREAM = {
  __proto__: null,
  "host-unknown": "This server does not know the domain behind the @.",
  "conflict": "The session goes on in another tab or window.",
  "not-authorized": "The server has ended the session: the account was disabled, removed, or logged out there.",
  "system-shutdown": "The server is shutting down.",
  "policy-violation": "The server has ended the session.",
};

/// Why there is no session.
export function whyNoSession(error, jid) {
  if (error instanceof LoginError) {
    if (error.condition === "no-mechanism") {
      return "The server offers no way to log in that this page knows (SCRAM-SHA-256)" +
        (error.text ? `, only ${error.text}.` : ".");
    }
    if (error.condition === "mutual") {
      return error.message === "the password is needed"
        ? "The server asks for your password again: it was changed, or the server has begun anew."
        : `Stopped, since this may not be your server: ${error.message}.`;
    }
    return (LOGIN[error.condition] ?? `The server refused the login (${error.condition}).`) + said(error.text);
  }
  if (error instanceof StreamError) {
    return (STREAM[error.condition] ?? `The server has ended the session (${error.condition}).`) + said(error.text);
  }
  if (error instanceof Disconnected) {
    if (navigator.onLine === false) return "No network. Connect this device, then try again.";
    return `No connection to the server at ${location.host}. Either it is down, or it does not accept this page ` +
      `(${location.origin}): its operator can allow that.`;
  }
  return `Something in this page is broken: ${error.message}`;
}

export const tooLarge = (bytes, most) =>
  `Too large: this message has ${thousands(bytes)} bytes, the server takes ${thousands(most)}. Send it in parts.`;

export const REFUSED = "The server refused this message, and ended the session over it: it was most likely too " +
  "large. Send it in parts.";

export const UNKNOWN = "Nobody knows whether this arrived: the server forgot the session. Ask, or send it again.";

const BOUNCED = {
  __proto__: null,
  "service-unavailable": "Not delivered: nobody can be reached at this address.",
  "item-not-found": "Not delivered: there is no such account.",
  "remote-server-not-found": "Not delivered: there is no such server. Look at what is behind the @.",
  "remote-server-timeout": "Not delivered: the other server does not answer. Try again later.",
  "resource-constraint": "Not delivered: too much waits there already. Try again later.",
  "policy-violation": "Not delivered: larger than the server allows, or too many at once. Send it in parts, or later.",
  "not-acceptable": "Not delivered: you have blocked this contact.",
  "forbidden": "Not delivered: you may not write there.",
  "jid-malformed": "Not delivered: that is not an address. One looks like juliet@example.com.",
};

/// Why a message came back.
export const whyBounced = ({ condition, text }) =>
  (BOUNCED[condition] ?? `Not delivered (${condition}).`) + said(text);

/// What is wrong with an address, or null.
export function wrongAddress(jid) {
  if (jid === "") return "Type an address, such as juliet@example.com.";
  if (/\s/.test(jid)) return "An address has no spaces.";
  if (!/^[^@/]+@[^@/]+$/.test(jid)) return "An address has a name, an @ and a domain: juliet@example.com.";
  return null;
}
