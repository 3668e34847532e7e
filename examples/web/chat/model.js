// Who there is and what was said: stanzas in, stanzas out, no page. `changed` is told which contact is another.

import { bare, readError } from "../xmpp/client.js";
import { NS, child, children, el, is, randomId, text } from "../xmpp/xml.js";
import { REFUSED, UNKNOWN, tooLarge, whyBounced } from "./words.js";

/// Messages of one conversation that the page holds.
const HELD = 20_000;
/// Milliseconds without a key until someone no longer writes.
const STILL = 5000;

/// Of a message that was sent, in this order. Errors are `failed`.
export const SENDING = "sending";
export const SENT = "sent";
export const DELIVERED = "delivered";
export const FAILED = "failed";

const SHOWS = ["chat", "online", "away", "xa", "dnd"];

/// By names that others choose, `__proto__` among them.
const none = () => Object.create(null);

class Contact {
  name = "";
  subscription = "none";
  /// Whether it was asked and has not answered.
  asked = false;
  /// Whether it is in the roster.
  listed = false;
  /// Whether it asks to see our presence.
  asks = false;
  /// By resource: `{ show, status, priority }`.
  presences = none();
  messages = [];
  unread = 0;
  typing = false;
  /// What is written and not sent.
  draft = "";
  /// When something was last said.
  at = 0;

  constructor({ presences, ...saved }) {
    Object.assign(this, saved);
    Object.assign(this.presences, presences);
  }

  /// What it is called. Of somebody unknown the whole address: its first part could be anybody's.
  get label() {
    return this.name || (this.listed ? this.jid.split("@")[0] : this.jid);
  }

  /// The presence to show, or null if there is none.
  get presence() {
    const all = Object.values(this.presences);
    return all.sort((a, b) => b.priority - a.priority || SHOWS.indexOf(a.show) - SHOWS.indexOf(b.show))[0] ?? null;
  }

  /// Whether we may see its presence.
  get isSeen() {
    return ["to", "both"].includes(this.subscription);
  }

  /// Whether it may see ours.
  get seesUs() {
    return ["from", "both"].includes(this.subscription);
  }

  /// Without its messages, which are stored apart.
  toJSON() {
    const { messages: _, typing: __, ...rest } = this;
    return rest;
  }
}

export class Chat {
  client = null;
  contacts = new Map();
  /// Own presence: `show` and `status`.
  show = "online";
  /// The contact whose conversation is open, if somebody looks at it.
  reading = null;
  #store;
  #view;
  // By id: messages of ours that something may yet happen to.
  #pending = new Map();
  #composing = null;
  // Whose requests we have accepted, and asked the same in turn.
  #accepted = new Set();

  /// `view` is told: `contact(contact)`, `message(contact, message)`, `notice(text)`, `state()`.
  constructor(store, view, saved) {
    this.#store = store;
    this.#view = view;
    this.show = saved?.session.show ?? this.show;
    for (const contact of saved?.contacts ?? []) {
      this.contacts.set(contact.jid, new Contact(contact));
      for (const { id, out, state } of contact.messages) {
        if (out && state !== DELIVERED) this.#pending.set(id, contact.jid);
      }
    }
  }

  contact(jid) {
    let contact = this.contacts.get(jid);
    if (!contact) this.contacts.set(jid, contact = new Contact({ jid }));
    return contact;
  }

  /// Something about a contact is another.
  #update(contact) {
    this.#store.touchContacts();
    this.#view.contact(contact);
  }

  // What the client tells

  changed() {
    this.#view.state();
  }

  save() {
    this.#store.save({ ...this.client.toJSON(), show: this.show }, this.contacts);
  }

  begin() {
    for (const contact of this.contacts.values()) {
      contact.presences = none();
      this.#update(contact);
    }
    this.client.send(el("iq", { type: "get", id: randomId() }, el("query", { xmlns: NS.roster })));
    this.client.request(null, "set", el("enable", { xmlns: NS.carbons })).catch(() => {});
    this.#sendPresence();
  }

  settled(ids) {
    for (const id of ids) this.#mark(id, SENT);
  }

  unknown(ids) {
    for (const id of ids) this.#mark(id, FAILED, UNKNOWN);
  }

  refused(id) {
    this.#mark(id, FAILED, REFUSED);
  }

  stanza(stanza) {
    if (is(stanza, "message")) this.#message(stanza);
    else if (is(stanza, "presence")) this.#presence(stanza);
    else if (is(stanza, "iq")) this.#iq(stanza);
  }

  // Messages

  /// Sends a message, or says why it is too large.
  say(contact, body) {
    const message = { id: randomId(), out: true, body, at: Date.now(), state: SENDING };
    const stanza = chatMessage(contact, message.id, body);
    const { maxBytes } = this.client;
    if (!this.client.fits(stanza)) return tooLarge(new TextEncoder().encode(body).length, maxBytes);
    this.#stopComposing();
    this.#add(contact, message);
    this.client.send(stanza, { keep: true });
    return null;
  }

  /// Sends a message again that has failed.
  again(contact, message) {
    const problem = this.say(contact, message.body);
    if (problem) return problem;
    contact.messages.splice(contact.messages.indexOf(message), 1);
    this.#pending.delete(message.id);
    return null;
  }

  /// A key was pressed in the conversation with someone (XEP-0085).
  composing(contact, draft) {
    contact.draft = draft;
    this.#store.touchContacts();
    const { contact: before, timer } = this.#composing ?? {};
    if (before === contact && draft !== "") {
      clearTimeout(timer);
    } else {
      this.#tellComposing("paused");
      if (draft === "") return;
      this.#composing = { contact };
      this.#sendState(contact, "composing");
    }
    this.#composing.timer = setTimeout(() => this.#tellComposing("paused"), STILL);
  }

  #stopComposing() {
    clearTimeout(this.#composing?.timer);
    this.#composing = null;
  }

  #tellComposing(state) {
    const { contact } = this.#composing ?? {};
    this.#stopComposing();
    if (contact) this.#sendState(contact, state);
  }

  #sendState(contact, state) {
    // Nobody else sees it, and nobody else may: it tells that we are here.
    if (this.client.state.name !== "online" || !contact.presence || !contact.seesUs) return;
    this.client.send(el("message", { to: contact.jid, type: "chat" }, el(state, { xmlns: NS.chatStates }),
      el("no-store", { xmlns: NS.hints })));
  }

  /// The conversation is looked at.
  read(contact) {
    if (contact.unread === 0) return;
    contact.unread = 0;
    this.#update(contact);
  }

  #add(contact, message) {
    contact.messages.push(message);
    if (contact.messages.length > HELD) this.#pending.delete(contact.messages.shift().id);
    contact.at = message.at;
    if (message.out) this.#pending.set(message.id, contact.jid);
    else if (this.reading !== contact) contact.unread++;
    this.#store.touchContacts();
    this.#store.touch(contact.jid);
    this.#view.message(contact, message);
  }

  /// A message of ours has come further. It never goes back: what is delivered is not merely sent.
  #mark(id, state, error = null) {
    const contact = this.contacts.get(this.#pending.get(id));
    const message = contact?.messages.findLast((each) => each.out && each.id === id);
    if (!message || message.state === DELIVERED || (message.state === FAILED && state === SENT)) return;
    message.state = state;
    message.error = error;
    if (state === DELIVERED) this.#pending.delete(id);
    this.#store.touch(contact.jid);
    this.#view.message(contact, message);
  }

  #message(stanza) {
    const from = bare(stanza.getAttribute("from") ?? this.client.jid);
    for (const direction of ["received", "sent"]) {
      const carbon = child(stanza, direction, NS.carbons);
      if (!carbon) continue;
      // Only the own account makes copies; from anyone else it is a forgery.
      const forwarded = from === this.client.jid && child(carbon, "forwarded", NS.forward);
      const message = forwarded && child(forwarded, "message");
      if (message) this.#oneMessage(message, direction === "sent", forwarded, true);
      return;
    }
    this.#oneMessage(stanza, false, stanza, false);
  }

  #oneMessage(stanza, out, stamped, copied) {
    const type = stanza.getAttribute("type");
    const peer = bare(stanza.getAttribute(out ? "to" : "from") ?? this.client.domain);
    const id = stanza.getAttribute("id");
    if (type === "groupchat") return;
    if (type === "error") {
      if (this.#pending.get(id) === peer) this.#mark(id, FAILED, whyBounced(readError(stanza)));
      return;
    }
    const receipt = child(stanza, "received", NS.receipts)?.getAttribute("id");
    if (receipt && !out && this.#pending.get(receipt) === peer) this.#mark(receipt, DELIVERED);

    const contact = this.contacts.get(peer);
    const body = text(stanza, "body");
    if (!out && contact) this.#typing(contact, body === null && Boolean(child(stanza, "composing", NS.chatStates)));
    // The server sends what goes to the own account back to it.
    if (!body || (!out && peer === this.client.jid)) return;
    const message = { id: id ?? randomId(), out, body, at: this.#stamp(stamped) };
    if (out) message.state = SENT;
    this.#add(this.contact(peer), message);
    const wanted = child(stanza, "request", NS.receipts) && id && !out && !copied;
    if (wanted && contact?.seesUs) this.#confirm(stanza, id, type);
  }

  /// Tells a contact that may see us that its message is here (XEP-0184).
  #confirm(stanza, id, type) {
    this.client.send(el("message", { to: stanza.getAttribute("from"), type, id: randomId() },
      el("received", { xmlns: NS.receipts, id }), el("store", { xmlns: NS.hints })), { keep: true });
  }

  #typing(contact, typing) {
    if (contact.typing === typing) return;
    contact.typing = typing;
    this.#update(contact);
  }

  /// When a message was sent. Of others' stamps only those of the own server count (XEP-0203).
  #stamp(stamped) {
    const now = Date.now();
    const ours = [this.client.domain, this.client.jid];
    const delay = children(stamped, "delay", NS.delay).find((each) => ours.includes(each.getAttribute("from")));
    const at = Date.parse(delay?.getAttribute("stamp") ?? "");
    return at <= now ? at : now;
  }

  // Roster and presence

  setShow(show) {
    this.show = show;
    this.#sendPresence();
  }

  #sendPresence() {
    this.client.send(el("presence", {}, this.show === "online" ? null : el("show", {}, this.show)));
  }

  /// Adds a contact and asks to see its presence.
  async add(jid, name) {
    await this.#set(jid, { name: name || null });
    const contact = this.contact(jid);
    if (contact.asks) this.accept(contact);
    else this.#subscription(jid, "subscribe");
  }

  async rename(contact, name) {
    await this.#set(contact.jid, { name: name || null });
  }

  async remove(contact) {
    await this.#set(contact.jid, { subscription: "remove" });
  }

  accept(contact) {
    this.#subscription(contact.jid, "subscribed");
    if (!contact.asked && !contact.isSeen) {
      this.#accepted.add(contact.jid);
      this.#subscription(contact.jid, "subscribe");
    }
    this.#answered(contact);
  }

  decline(contact) {
    this.#subscription(contact.jid, "unsubscribed");
    this.#answered(contact);
  }

  #answered(contact) {
    contact.asks = false;
    this.#update(contact);
  }

  #set(jid, item) {
    return this.client.request(null, "set", el("query", { xmlns: NS.roster },
      el("item", { xmlns: NS.roster, jid, ...item })));
  }

  #subscription(to, type) {
    this.client.send(el("presence", { to, type, id: randomId() }), { keep: true });
  }

  #presence(stanza) {
    const [jid, resource = ""] = (stanza.getAttribute("from") ?? this.client.jid).split(/\/(.*)/s, 2);
    if (jid === this.client.jid) return;
    const type = stanza.getAttribute("type");
    const contact = this.contacts.get(jid) ?? (type === "subscribe" ? this.contact(jid) : null);
    if (!contact) return;
    switch (type) {
      case null:
        // Whoever likes may send one. Only who was asked for theirs is believed.
        if (!contact.isSeen) return;
        contact.presences[resource] = {
          show: SHOWS.find((show) => show === text(stanza, "show")) ?? "online",
          status: text(stanza, "status") ?? "",
          priority: Number(text(stanza, "priority")) || 0,
        };
        break;
      case "unavailable":
        if (resource) delete contact.presences[resource];
        else contact.presences = none();
        if (!contact.presence) contact.typing = false;
        break;
      case "subscribe":
        // Whom we have asked ourselves may ask as well.
        if (contact.asked || contact.isSeen) this.#subscription(jid, "subscribed");
        else contact.asks = true;
        break;
      case "subscribed":
        // Of who has asked us first it is no news.
        if (!this.#accepted.delete(jid)) this.#view.notice(`${contact.label} has accepted your request.`);
        break;
      case "unsubscribe":
        contact.asks = false;
        break;
      default:
        return;
    }
    this.#update(contact);
  }

  #iq(stanza) {
    const type = stanza.getAttribute("type");
    const from = stanza.getAttribute("from");
    const own = from === null || bare(from) === this.client.jid;
    const roster = own && child(stanza, "query", NS.roster);
    if (type === "result" && roster) this.#roster(roster);
    if (type !== "get" && type !== "set") return;
    if (type === "set" && roster) {
      this.#items(roster);
      this.#answer(stanza);
    } else if (type === "get" && child(stanza, "ping", NS.ping)) {
      this.#answer(stanza);
    } else if (type === "get" && child(stanza, "query", NS.disco)) {
      const features = [NS.disco, NS.ping, NS.receipts, NS.chatStates];
      this.#answer(stanza, el("query", { xmlns: NS.disco },
        el("identity", { xmlns: NS.disco, category: "client", type: "web", name: "xmpp-session web example" }),
        ...features.map((feature) => el("feature", { xmlns: NS.disco, var: feature }))));
    } else {
      const [id, to] = [stanza.getAttribute("id"), from];
      this.client.send(el("iq", { id, to, type: "error" }, el("error", { type: "cancel" },
        el("service-unavailable", { xmlns: NS.stanzaErrors }))));
    }
  }

  #answer(stanza, payload = null) {
    const [id, to] = [stanza.getAttribute("id"), stanza.getAttribute("from")];
    this.client.send(el("iq", { id, to, type: "result" }, payload));
  }

  /// The whole roster: who is no longer in it has been removed meanwhile.
  #roster(query) {
    const listed = new Set(children(query, "item", NS.roster).map((item) => item.getAttribute("jid")));
    for (const contact of this.contacts.values()) if (!listed.has(contact.jid)) this.#item(contact, null);
    this.#items(query);
  }

  #items(query) {
    for (const item of children(query, "item", NS.roster)) {
      const contact = this.contact(item.getAttribute("jid"));
      this.#item(contact, item.getAttribute("subscription") === "remove" ? null : item);
    }
  }

  #item(contact, item) {
    contact.listed = item !== null;
    contact.name = item?.getAttribute("name") ?? "";
    contact.subscription = item?.getAttribute("subscription") ?? "none";
    contact.asked = item?.getAttribute("ask") === "subscribe";
    if (!contact.isSeen) contact.presences = none();
    // Answered elsewhere.
    if (contact.seesUs) contact.asks = false;
    this.#update(contact);
  }
}

const chatMessage = ({ jid }, id, body) =>
  el("message", { to: jid, type: "chat", id }, el("body", {}, body), el("active", { xmlns: NS.chatStates }),
    el("request", { xmlns: NS.receipts }));
