// XML as XMPP uses it: elements of the DOM, made by `el`, read by `child`, `children` and `text`.

export const NS = {
  client: "jabber:client",
  framing: "urn:ietf:params:xml:ns:xmpp-framing",
  stream: "http://etherx.jabber.org/streams",
  streamErrors: "urn:ietf:params:xml:ns:xmpp-streams",
  stanzaErrors: "urn:ietf:params:xml:ns:xmpp-stanzas",
  sasl: "urn:ietf:params:xml:ns:xmpp-sasl",
  bind: "urn:ietf:params:xml:ns:xmpp-bind",
  limits: "urn:xmpp:stream-limits:0",
  sm: "urn:xmpp:sm:3",
  csi: "urn:xmpp:csi:0",
  roster: "jabber:iq:roster",
  carbons: "urn:xmpp:carbons:2",
  forward: "urn:xmpp:forward:0",
  receipts: "urn:xmpp:receipts",
  chatStates: "http://jabber.org/protocol/chatstates",
  hints: "urn:xmpp:hints",
  delay: "urn:xmpp:delay",
  disco: "http://jabber.org/protocol/disco#info",
  ping: "urn:xmpp:ping",
};

const factory = document.implementation.createDocument(null, null);
const serializer = new XMLSerializer();
const parser = new DOMParser();

// What XML 1.0 cannot carry, not even escaped. One such character would end the stream.
const FORBIDDEN = /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/gu;
const carried = (text) => String(text).replace(FORBIDDEN, "\uFFFD");

/// An element. `xmlns` is that of stanzas unless given; attributes and children that are null are left out.
export function el(name, { xmlns = NS.client, ...attributes } = {}, ...contents) {
  const element = factory.createElementNS(xmlns, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value != null) element.setAttribute(key, carried(value));
  }
  for (const content of contents) {
    if (content != null) element.append(content instanceof Node ? content : carried(content));
  }
  return element;
}

export const serialize = (element) => serializer.serializeToString(element);

export function parse(xml) {
  const root = parser.parseFromString(xml, "application/xml").documentElement;
  // A document that holds this word itself is none that failed: a server passes on nothing that is not well-formed.
  if (!xml.includes("parsererror") && root.ownerDocument.querySelector("parsererror")) {
    throw new SyntaxError("not well-formed XML");
  }
  return root;
}

export const is = (element, name, xmlns = NS.client) =>
  element?.localName === name && element.namespaceURI === xmlns;

export const children = (element, name, xmlns = NS.client) =>
  [...element.children].filter((each) => is(each, name, xmlns));

export const child = (element, name, xmlns = NS.client) =>
  [...element.children].find((each) => is(each, name, xmlns)) ?? null;

/// The text of a child, or null if there is no such child.
export const text = (element, name, xmlns = NS.client) => child(element, name, xmlns)?.textContent ?? null;

/// The condition of an error and the text beside it (RFC 6120 §4.9, §6.5, §8.3).
export function condition(error, xmlns) {
  const found = [...error.children].find((each) => each.namespaceURI === xmlns && each.localName !== "text");
  return { condition: found?.localName ?? "undefined-condition", text: text(error, "text", xmlns) };
}

export const randomId = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
};
