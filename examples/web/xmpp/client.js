// A session that outlives its connections: it logs in, resumes what it can (XEP-0198), and says what it cannot.
//
// `app` is told what happens, and is never called while it is in a call of its own:
//   changed()        the state is another
//   begin()          a session without a past has begun: ask for the roster, send presence
//   stanza(element)  a stanza has come
//   settled(ids)     the server has these stanzas
//   unknown(ids)     nobody can say whether the server got them: the old session is gone with its counts
//   refused(id)      the server ended the session over this one
//   save()           store all that has been told, `toJSON` included: the server is about to forget it

import { LoginError, login } from "./login.js";
import { Management, readCount } from "./management.js";
import { Disconnected, Stream, StreamError } from "./stream.js";
import { NS, child, condition, el, is, randomId, serialize, text } from "./xml.js";

const SECOND = 1000;
/// How long a login may take, and an answer of the server's; after a sleep it is known to be late.
const TIMES = { login: 20 * SECOND, answer: 10 * SECOND, awake: 4 * SECOND };
/// Silence after which the server is asked: less than a minute, when many proxies cut.
const SILENCE = 30 * SECOND;
const WATCH = 2 * SECOND;
const PAUSE = { first: SECOND / 2, longest: 30 * SECOND };
/// Bytes for each millisecond more that an answer may take.
const SLOWEST = 32;

/// What a client may try again after; whatever else ends a stream ends the session for the user.
const PASSING = new Set(["system-shutdown", "reset", "internal-server-error", "resource-constraint",
  "connection-timeout", "undefined-condition"]);

export class Client {
  #url;
  #app;
  #secret;
  #sm;
  #stream = null;
  #ready = false;
  #over = false;
  #wasOnline;
  #refusing = false;
  #features = { sm: false, csi: false };
  #active = true;
  #heard = 0;
  #asked = null;
  #pushed = false;
  #retry = null;
  #requests = new Map();

  /// "connecting", "online" (`resumed`), "waiting" (`until`, `error`), or "ended" (`error`).
  state = { name: "connecting" };
  /// The bare JID, and the full one once there is a session.
  jid;
  address = null;
  /// Bytes that a stanza may have.
  maxBytes = Infinity;

  constructor({ url, jid, secret, saved }, app) {
    this.#url = url;
    this.#app = app;
    this.jid = saved?.jid ?? jid;
    this.address = saved?.address ?? null;
    this.#secret = secret ?? saved?.secret;
    this.#sm = new Management(saved?.sm);
    this.#wasOnline = Boolean(saved);
  }

  /// What a later client needs to go on from here. A password is not in it.
  toJSON() {
    const { keys } = this.#secret;
    return { jid: this.jid, address: this.address, secret: { keys }, sm: this.#sm };
  }

  get domain() {
    return this.jid.slice(this.jid.indexOf("@") + 1);
  }

  async start() {
    for (let failures = 0; !this.#over;) {
      this.#become({ name: "connecting" });
      const begun = Date.now();
      let failure;
      try {
        await this.#connect();
        await this.#talk();
      } catch (error) {
        failure = error;
      }
      this.#ready = false;
      this.#stream?.drop();
      if (this.#over) return;
      if (!this.#survives(failure)) return this.#end(failure);
      if (Date.now() - begun > PAUSE.longest) failures = 0;
      await this.#pause(failures++, failure);
    }
  }

  /// Ends the session for good.
  stop() {
    if (this.#ready) this.#stream.close();
    this.#stream?.drop();
    this.#end(null);
  }

  /// A client of the same account, for a session of its own; it sends what this one could not.
  renewed() {
    const sm = { queue: this.#sm.queue };
    return new Client({ url: this.#url, saved: { jid: this.jid, secret: this.#secret, sm } }, this.#app);
  }

  /// Tries at once what would be tried later: the network is back, the user looks.
  wake() {
    this.#retry?.();
    if (this.#ready) this.#ask(TIMES.awake);
  }

  /// Whether somebody looks (XEP-0352).
  setActive(active) {
    if (this.#active === active) return;
    this.#active = active;
    this.#tellActive();
  }

  /// Sends a stanza, now or as soon as there is a connection. With `keep` a new session sends it too, if the old one
  /// has not; it then needs an id.
  send(stanza, { keep = false } = {}) {
    const entry = { id: stanza.getAttribute("id"), xml: serialize(stanza), keep, written: this.#ready };
    this.#sm.push(entry);
    this.#app.save();
    if (this.#ready) this.#write(entry);
  }

  /// Asks and waits for the answer; throws the error as `{ condition, text }`.
  request(to, type, payload) {
    const id = randomId();
    const answer = new Promise((resolve, reject) => this.#requests.set(id, { resolve, reject }));
    this.send(el("iq", { id, to, type }, payload));
    return answer;
  }

  fits(stanza) {
    return sizeOf(serialize(stanza)) <= this.maxBytes;
  }

  // From a connection to a session

  async #connect() {
    const stream = new Stream(this.#url, this.domain);
    this.#stream = stream;
    const timer = setTimeout(() => stream.drop(), TIMES.login);
    try {
      const user = this.jid.slice(0, this.jid.indexOf("@"));
      this.#secret = await login(stream, await stream.open(), user, this.#secret);
      const features = await stream.open();
      const limits = child(features, "limits", NS.limits);
      this.maxBytes = Number(limits && text(limits, "max-bytes", NS.limits)) || Infinity;
      this.#features = { sm: Boolean(child(features, "sm", NS.sm)), csi: Boolean(child(features, "csi", NS.csi)) };
      if (!(this.#sm.id && await this.#resume(stream))) await this.#bind(stream);
    } finally {
      clearTimeout(timer);
    }
  }

  async #resume(stream) {
    stream.send(el("resume", { xmlns: NS.sm, previd: this.#sm.id, h: this.#sm.handled }));
    const answer = await stream.receive();
    const h = readCount(answer.getAttribute("h"));
    if (!is(answer, "resumed", NS.sm)) {
      this.#forget(h);
      return false;
    }
    this.#settle(h);
    this.#dropRefused();
    this.#open(true);
    for (const entry of this.#sm.queue) this.#write(entry);
    return true;
  }

  async #bind(stream) {
    const id = randomId();
    stream.send(el("iq", { id, type: "set" }, el("bind", { xmlns: NS.bind })));
    const answer = await stream.receive();
    if (answer.getAttribute("type") !== "result") throw new LoginError(readError(answer));
    this.address = text(child(answer, "bind", NS.bind), "jid", NS.bind);
    this.jid = bare(this.address);
    // What the last session has left, or what was sent before there was one.
    this.#forget(null);
    const left = this.#sm.queue.splice(0);
    if (this.#features.sm) stream.send(el("enable", { xmlns: NS.sm, resume: "true" }));
    this.#open(false);
    this.#app.begin();
    for (const entry of left) {
      this.#sm.push(entry);
      this.#write(entry);
    }
    this.#app.save();
  }

  /// Stanzas go both ways from here.
  #open(resumed) {
    this.#ready = true;
    this.#wasOnline = true;
    this.#heard = Date.now();
    this.#asked = null;
    // A stream begins active, and so does one that is resumed.
    if (!this.#active) this.#tellActive();
    this.#become({ name: "online", resumed });
  }

  /// The session before is no more. `h` is how far the server had come with it.
  #forget(h) {
    const { settled, again, unknown } = this.#sm.end(h);
    for (const { reject } of this.#requests.values()) reject({ condition: "gone", text: null });
    this.#requests.clear();
    this.#sm.queue = again.map((entry) => ({ ...entry, written: false }));
    this.#dropRefused();
    this.#app.settled(ids(settled));
    if (unknown.length > 0) this.#app.unknown(ids(unknown));
  }

  /// The first stanza that the server did not count is the one over which it has ended the session.
  #dropRefused() {
    const [first] = this.#sm.queue;
    const isRefused = this.#refusing && first && this.#isTooLarge(first);
    this.#refusing = false;
    if (!isRefused) return;
    this.#sm.queue.shift();
    this.#app.refused(first.id);
  }

  #isTooLarge({ xml }) {
    return this.maxBytes === Infinity || sizeOf(xml) > this.maxBytes;
  }

  // While there is a session

  async #talk() {
    const watch = setInterval(() => this.#watch(), WATCH);
    try {
      for (;;) this.#element(await this.#stream.receive());
    } finally {
      clearInterval(watch);
    }
  }

  #element(element) {
    this.#heard = Date.now();
    if (element.namespaceURI === NS.client) {
      this.#sm.received();
      this.#stanza(element);
    } else if (is(element, "enabled", NS.sm)) {
      this.#sm.enabled(element.getAttribute("resume") ? element.getAttribute("id") : null);
      this.#app.save();
    } else if (is(element, "r", NS.sm)) {
      // What is acknowledged here never comes again: it has to be safe first.
      this.#app.save();
      this.#stream.send(el("a", { xmlns: NS.sm, h: this.#sm.handled }));
    } else if (is(element, "a", NS.sm)) {
      this.#asked = null;
      this.#settle(readCount(element.getAttribute("h")));
      this.#pushed &&= this.#sm.queue.length > 0;
      if (this.#pushed) this.#ask();
    }
  }

  #stanza(stanza) {
    const request = is(stanza, "iq") && this.#requests.get(stanza.getAttribute("id"));
    const type = stanza.getAttribute("type");
    if (request && (type === "result" || type === "error")) {
      this.#requests.delete(stanza.getAttribute("id"));
      if (type === "result") request.resolve(stanza);
      else request.reject(readError(stanza));
    }
    try {
      this.#app.stanza(stanza);
    } catch (error) {
      // One that the page cannot read must not keep it from the next.
      console.error(error, stanza);
    }
  }

  #write(entry) {
    entry.written = true;
    this.#stream.send(entry.xml);
    if (!this.#features.sm) {
      this.#sm.queue.splice(0);
      this.#app.settled(ids([entry]));
      return;
    }
    this.#pushed = true;
    if (entry.keep) this.#ask();
  }

  #settle(h) {
    const settled = h === null ? null : this.#sm.settle(h);
    if (settled === null) {
      this.#forget(null);
      throw new Disconnected("the server counts what was never sent");
    }
    this.#app.settled(ids(settled));
  }

  /// Asks the server how far it is, which also tells whether it is there.
  #ask(patience = TIMES.answer) {
    if (!this.#features.sm) return;
    const until = Date.now() + patience + this.#unsent() / SLOWEST;
    if (this.#asked !== null) {
      this.#asked = Math.min(this.#asked, until);
      return;
    }
    this.#asked = until;
    this.#pushed = false;
    this.#stream.send(el("r", { xmlns: NS.sm }));
  }

  #unsent() {
    return this.#sm.queue.reduce((sum, { xml }) => sum + xml.length, 0);
  }

  #watch() {
    const now = Date.now();
    if (this.#asked !== null && now > this.#asked && now - this.#heard > TIMES.awake) this.#stream.drop();
    else if (this.#pushed || now - this.#heard > SILENCE) this.#ask();
  }

  #tellActive() {
    if (this.#ready && this.#features.csi) {
      this.#stream.send(el(this.#active ? "active" : "inactive", { xmlns: NS.csi }));
    }
  }

  // The end of a connection

  #survives(error) {
    if (error instanceof Disconnected) return this.#wasOnline;
    if (error instanceof LoginError) return this.#wasOnline && error.condition === "temporary-auth-failure";
    if (!(error instanceof StreamError)) {
      console.error(error);
      return this.#wasOnline;
    }
    if (error.condition === "undefined-condition") this.#forget(null);
    // Over a stanza that is too large: which it was is found by counting, once the server has said how far it got.
    this.#refusing = error.condition === "policy-violation" && this.#sm.queue.some((entry) => this.#isTooLarge(entry));
    return this.#wasOnline && (this.#refusing || PASSING.has(error.condition));
  }

  async #pause(failures, error) {
    const most = Math.min(PAUSE.longest, PAUSE.first * 2 ** failures);
    const pause = most * (0.5 + Math.random() / 2);
    this.#become({ name: "waiting", until: Date.now() + pause, error });
    await new Promise((resolve) => {
      this.#retry = resolve;
      setTimeout(resolve, pause);
    });
    this.#retry = null;
  }

  #end(error) {
    this.#over = true;
    this.#ready = false;
    this.#retry?.();
    // After a login that failed there may be one that works, and the session with it.
    if (error instanceof StreamError) this.#forget(null);
    this.#become({ name: "ended", error });
  }

  #become(state) {
    this.state = state;
    this.#app.changed();
  }
}

export const bare = (jid) => jid.split("/", 1)[0];

export const readError = (stanza) => {
  const error = child(stanza, "error");
  return error ? condition(error, NS.stanzaErrors) : { condition: "undefined-condition", text: null };
};

const ids = (entries) => entries.map((entry) => entry.id).filter((id) => id !== null);
const sizeOf = (xml) => new TextEncoder().encode(xml).length;
