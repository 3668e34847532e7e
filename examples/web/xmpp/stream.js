// A stream over a WebSocket (RFC 7395): each message is one element, the stream begins with `<open/>` and ends
// with `<close/>`.

import { NS, condition, el, is, parse, serialize } from "./xml.js";

/// The transport is gone, or never came: what was sent may or may not have arrived.
export class Disconnected extends Error {
  name = "Disconnected";
}

/// The server has ended the stream, and says why.
export class StreamError extends Error {
  name = "StreamError";

  constructor({ condition, text }) {
    super(text ?? condition);
    this.condition = condition;
    this.text = text;
  }
}

export class Stream {
  #socket;
  #domain;
  #opened;
  #received = [];
  // Wakes who waits for the next element.
  #wake = null;
  #failure = null;

  constructor(url, domain) {
    this.#domain = domain;
    this.#socket = new WebSocket(url, "xmpp");
    this.#opened = new Promise((resolve) => {
      this.#socket.onopen = resolve;
      this.#wake = resolve;
    });
    this.#socket.onmessage = ({ data }) => this.#message(data);
    this.#socket.onclose = ({ code }) => this.drop(new Disconnected(`closed with code ${code}`));
  }

  /// Opens the stream, or opens it anew after the login, and returns its features.
  async open() {
    await this.greet();
    return this.receive();
  }

  /// Opens the stream, and returns as which domain the server answers: one of its own, where it does not know ours.
  async greet() {
    await this.#opened;
    this.send(el("open", { xmlns: NS.framing, to: this.#domain, version: "1.0" }));
    const open = await this.receive();
    if (!is(open, "open", NS.framing)) throw new Disconnected("this is not an XMPP server");
    return open.getAttribute("from");
  }

  /// Sends an element, or one that is text already. What comes too late is dropped: see `receive`.
  send(element) {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(typeof element === "string" ? element : serialize(element));
  }

  /// The next element. Throws once there will be none.
  async receive() {
    while (this.#received.length === 0) {
      if (this.#failure) throw this.#failure;
      await new Promise((resolve) => { this.#wake = resolve; });
    }
    return this.#received.shift();
  }

  /// Bytes that the browser has not sent yet.
  get waiting() {
    return this.#socket.bufferedAmount;
  }

  /// Ends the stream in order: the session is over, and cannot be resumed.
  close() {
    this.send(el("close", { xmlns: NS.framing }));
    this.drop(new Disconnected("the stream has ended"));
  }

  /// Lets go of the transport without waiting for it: one that hangs takes long to close.
  drop(failure = new Disconnected("the server does not answer")) {
    if (this.#failure) return;
    this.#failure = failure;
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.close();
    this.#wake?.();
  }

  #message(data) {
    try {
      const element = parse(data);
      if (is(element, "error", NS.stream)) {
        this.drop(new StreamError(condition(element, NS.streamErrors)));
      } else if (is(element, "close", NS.framing)) {
        this.close();
      } else {
        this.#received.push(element);
        this.#wake?.();
      }
    } catch (error) {
      this.drop(new Disconnected(error.message));
    }
  }
}
