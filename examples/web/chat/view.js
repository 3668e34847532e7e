// The page around a conversation: who there is, whether there is a connection, and what is asked of the user.

import { $, avatar, coalesced, h, icon, setText, shortTime } from "./dom.js";
import { Conversation } from "./conversation.js";
import { whyNoSession, wrongAddress } from "./words.js";
import { StreamError } from "../xmpp/stream.js";

const NOTICE = 5000;

const alphabet = new Intl.Collator();
const SHOWS = { online: "Online", chat: "Free to chat", away: "Away", xa: "Away for long", dnd: "Do not disturb" };

const canHover = () => matchMedia("(hover: hover)").matches;

export class View {
  #chat;
  #conversation = new Conversation({ leave: () => this.#leaveTalk() });
  // By contact: its button and the parts of it that change.
  #rows = new Map();
  #changed = new Set();
  // The one that Tab leads to.
  #entry = null;
  #draw = coalesced(() => this.#drawContacts());
  #wasOnline = false;
  #lost = false;
  // What the server said when it ended the last connection.
  #reason = "";
  #notice = null;
  #again;

  constructor({ again, leave }) {
    this.#again = again;
    $("log-out").addEventListener("click", leave);
    $("back").addEventListener("click", () => this.#leaveTalk());
    $("own-show").addEventListener("change", ({ target }) => {
      this.#chat.setShow(target.value);
      this.#drawOwn();
    });
    $("find").addEventListener("input", () => this.#filter());
    $("find").addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.#step(event, 0);
      if (event.key === "Enter") this.#visibleRows()[0]?.click();
      if (event.key === "Escape") {
        event.target.value = "";
        this.#filter();
      }
    });
    $("contacts").addEventListener("keydown", (event) => {
      const rows = this.#visibleRows();
      const at = rows.indexOf(document.activeElement);
      const steps = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 };
      if (event.key in steps) this.#step(event, steps[event.key]);
    });
    $("add-contact").addEventListener("click", () => this.#askToAdd(""));
    $("peer-more").addEventListener("click", () => this.#askAbout(this.#conversation.contact));
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.addEventListener("click", ({ target }) => {
        if (target === dialog || target.closest("[data-close]")) dialog.close();
      });
    }
    window.addEventListener("popstate", () => this.#showTalk(this.#chat?.contacts.get(history.state?.with)));
    document.addEventListener("visibilitychange", () => this.#look());
  }

  /// Shows what is there.
  show(chat, { restored }) {
    this.hide();
    this.#chat = chat;
    this.#wasOnline = restored;
    this.#lost = restored;
    $("own-show").value = chat.show;
    this.#drawAll();
    this.#showTalk(chat.contacts.get(history.state?.with));
    this.state();
  }

  /// Where the keyboard goes on after the login.
  focus() {
    if (this.#conversation.contact) this.#focusTalk();
    else $(canHover() ? "find" : "people").focus();
  }

  /// Forgets it again.
  hide() {
    this.#chat = null;
    this.#changed.clear();
    this.#rows.clear();
    $("contacts").replaceChildren();
    $("requests").replaceChildren();
    this.#conversation.open(null, null);
    this.#say("", "");
  }

  // What the model tells

  contact(contact) {
    this.#changed.add(contact);
    this.#draw();
  }

  message(contact, message) {
    this.#conversation.message(contact, message);
    if (contact === this.#chat?.reading) this.#chat.read(contact);
    this.contact(contact);
  }

  notice(text) {
    clearTimeout(this.#notice);
    this.#say("good", text);
    this.#notice = setTimeout(() => {
      this.#notice = null;
      this.state();
    }, NOTICE);
  }

  state() {
    if (!this.#chat) return;
    const { name, until, resumed, error } = this.#chat.client.state;
    document.documentElement.dataset.connection = name;
    this.#drawOwn();
    if (name === "online") {
      if (this.#lost) {
        this.#lost = false;
        if (resumed) this.notice("Resumed: nothing was lost.");
        else if (this.#wasOnline) this.notice("Reconnected, with a new session: what was not confirmed is marked.");
        else this.#say("", "");
      } else if (this.#notice === null) {
        this.#say("", "");
      }
      this.#wasOnline = true;
      this.#reason = "";
      return;
    }
    clearTimeout(this.#notice);
    this.#notice = null;
    this.#lost = true;
    if (name === "connecting") {
      this.#say("busy", this.#wasOnline ? `${this.#reason}Reconnecting…` : "Connecting…");
    } else if (name === "waiting") {
      if (error instanceof StreamError) this.#reason = `${whyNoSession(error)} `;
      const left = h("span", { "aria-hidden": "true" });
      const count = () => setText(left, ` Next try in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s.`);
      count();
      const timer = setInterval(() => (left.isConnected ? count() : clearInterval(timer)), 500);
      this.#say("busy", navigator.onLine === false ? "No network. Reconnecting…" : `${this.#reason}Reconnecting…`, left,
        h("button", { type: "button", class: "link", onclick: () => this.#chat.client.wake() }, "Try now"));
    } else {
      this.#say("bad", error ? whyNoSession(error) : "You are logged out.",
        h("button", { type: "button", class: "link", onclick: this.#again },
          error?.condition === "conflict" ? "Use it here" : "Begin a new one"));
    }
  }

  #say(kind, ...contents) {
    const status = $("status");
    status.className = kind;
    status.replaceChildren(...(contents[0] ? [h("span", { class: "mark", "aria-hidden": "true" }), ...contents] : []));
  }

  #drawOwn() {
    const { client, show } = this.#chat;
    const name = client.jid.split("@")[0];
    avatar($("own-avatar"), name, client.jid);
    setText($("own-name"), client.jid);
    $("own-name").title = client.jid;
    $("own-dot").dataset.show = client.state.name === "online" ? show : "offline";
  }

  // Contacts

  #drawAll() {
    for (const contact of this.#chat.contacts.values()) this.#changed.add(contact);
    this.#drawContacts();
  }

  #drawContacts() {
    if (!this.#chat) return;
    for (const contact of this.#changed) this.#drawContact(contact);
    const talk = this.#conversation.contact;
    if (this.#changed.has(talk)) this.#drawPeer(talk);
    this.#changed.clear();
    const order = [...this.#rows.keys()].sort((a, b) => b.at - a.at || alphabet.compare(a.label, b.label));
    const list = $("contacts");
    const focused = document.activeElement;
    let next = list.firstChild;
    for (const contact of order) {
      const row = this.#rows.get(contact).button.parentNode;
      if (row === next) next = next.nextSibling;
      else list.insertBefore(row, next);
    }
    if (focused !== document.activeElement) focused.focus();
    this.#filter();
    const unread = order.reduce((sum, contact) => sum + contact.unread, 0);
    document.title = unread > 0 ? `(${unread}) Chat` : "Chat";
  }

  /// Shows those whose name or address has what is sought. Tab leads to one of them, arrows to the others.
  #filter() {
    const sought = $("find").value.trim().toLocaleLowerCase();
    for (const [{ label, jid }, { button }] of this.#rows) {
      const isFound = sought === "" || `${label} ${jid}`.toLocaleLowerCase().includes(sought);
      if (button.parentNode.hidden === isFound) button.parentNode.hidden = !isFound;
    }
    const rows = this.#visibleRows();
    const isEntry = (row) => row === document.activeElement || row.ariaCurrent === "true";
    this.#enterAt(rows.find(isEntry) ?? rows[0]);
    $("nobody").hidden = rows.length > 0 || (!sought && $("requests").hasChildNodes());
    setText($("nobody"), sought ? "Nobody of this name. Add an address with the + above."
      : "Nobody here yet. Add a contact with the + above.");
  }

  #enterAt(row) {
    if (row === this.#entry) return;
    if (this.#entry) this.#entry.tabIndex = -1;
    if (row) row.tabIndex = 0;
    this.#entry = row;
  }

  #drawContact(contact) {
    const isShown = contact.listed || contact.asked || contact.messages.length > 0;
    this.#drawRequest(contact);
    let row = this.#rows.get(contact);
    if (!isShown) {
      row?.button.parentNode.remove();
      this.#rows.delete(contact);
      return;
    }
    if (!row) this.#rows.set(contact, row = this.#newRow(contact));
    const { button, face, name, unseen, time, last, count } = row;
    avatar(face, contact.label, contact.jid);
    face.dataset.show = contact.presence?.show ?? "offline";
    setText(name, contact.label);
    setText(time, contact.at ? shortTime(contact.at) : "");
    const message = contact.messages.at(-1);
    setText(last, contact.typing ? "is writing…"
      : message ? `${message.out ? "You: " : ""}${message.body.slice(0, 120)}` : about(contact));
    last.classList.toggle("typing", contact.typing);
    button.classList.toggle("unread", contact.unread > 0);
    count.hidden = contact.unread === 0;
    setText(count, contact.unread > 999 ? "999+" : String(contact.unread || ""));
    const unread = contact.unread > 0 ? `, ${contact.unread} unread` : "";
    setText(unseen, `, ${SHOWS[contact.presence?.show] ?? "Offline"}${unread}, `);
    button.ariaCurrent = String(contact === this.#conversation.contact);
  }

  #newRow(contact) {
    const parts = {
      face: h("span", { class: "avatar", "aria-hidden": "true" }),
      name: h("strong", { dir: "auto" }),
      unseen: h("span", { class: "unseen" }),
      time: h("time"),
      last: h("span", { class: "last", dir: "auto" }),
      count: h("span", { class: "count", "aria-hidden": "true" }),
    };
    const onclick = () => this.#openTalk(contact);
    const button = h("button", { type: "button", class: "contact", tabIndex: -1, onclick }, ...Object.values(parts));
    h("li", {}, button);
    return { button, ...parts };
  }

  #drawRequest(contact) {
    const id = `request-${contact.jid}`;
    const shown = $(id);
    if (!contact.asks) return shown?.remove();
    if (shown) return;
    $("requests").append(h("li", { id },
      h("p", {}, h("strong", { dir: "auto" }, contact.jid),
        " wants to be your contact and to see when you are online."),
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "plain", onclick: () => this.#chat.decline(contact) }, "Decline"),
        h("button", { type: "button", class: "primary", onclick: () => this.#chat.accept(contact) }, "Accept"))));
  }

  #visibleRows() {
    return [...$("contacts").children].filter((row) => !row.hidden).map((row) => row.firstChild);
  }

  #step(event, to) {
    const row = this.#visibleRows()[to];
    if (!row) return;
    event.preventDefault();
    this.#enterAt(row);
    row.focus();
  }

  // The conversation

  #openTalk(contact) {
    const state = { with: contact.jid };
    if (history.state?.with) history.replaceState(state, "");
    else history.pushState(state, "");
    this.#showTalk(contact);
    this.#focusTalk();
  }

  #focusTalk() {
    // On a touch screen the keyboard would cover what one wants to read.
    if (canHover()) this.#conversation.focus();
    else $("scroll").focus({ preventScroll: true });
  }

  #leaveTalk() {
    const row = this.#rows.get(this.#conversation.contact)?.button;
    if (history.state?.with) history.back();
    else this.#showTalk(null);
    setTimeout(() => row?.focus(), 50);
  }

  #showTalk(contact = null) {
    if (!this.#chat) return;
    const before = this.#conversation.contact;
    $("app").dataset.talk = contact ? "open" : "none";
    if (contact) this.#drawPeer(contact);
    this.#conversation.open(this.#chat, contact);
    this.#look();
    for (const each of [before, contact]) if (each) this.contact(each);
  }

  #drawPeer(contact) {
    avatar($("peer-avatar"), contact.label, contact.jid);
    $("peer-avatar").dataset.show = contact.presence?.show ?? "offline";
    setText($("peer-name"), contact.label);
    setText($("peer-presence"), contact.typing ? "is writing…" : about(contact));
    $("peer-presence").classList.toggle("typing", contact.typing);
  }

  /// What is open and can be seen is read.
  #look() {
    if (!this.#chat) return;
    this.#chat.reading = document.hidden ? null : this.#conversation.contact;
    if (this.#chat.reading) this.#chat.read(this.#chat.reading);
  }

  // Dialogs

  #askToAdd(jid) {
    const dialog = $("add-dialog");
    this.#ask(dialog, { jid, name: "" }, async (form) => {
      const typed = form.jid.value.trim().toLowerCase();
      const whole = typed === "" || typed.includes("@") ? typed : `${typed}@${this.#chat.client.domain}`;
      const wrong = whole === this.#chat.client.jid ? "That is your own address." : wrongAddress(whole);
      if (wrong) return wrong;
      await this.#chat.add(whole, form.name.value.trim());
      this.#openTalk(this.#chat.contact(whole));
      return null;
    });
  }

  #askAbout(contact) {
    if (!contact) return;
    if (!contact.listed) return this.#askToAdd(contact.jid);
    setText($("peer-title"), contact.label);
    setText($("peer-about"), `${contact.jid} · ${relation(contact)}`);
    $("peer-remove").onclick = () => {
      this.#chat.remove(contact).catch((error) => this.notice(refusal(error)));
      $("peer-dialog").close();
    };
    this.#ask($("peer-dialog"), { name: contact.name }, async (form) => {
      await this.#chat.rename(contact, form.name.value.trim());
      return null;
    });
  }

  /// Opens a dialog; `act` returns what is wrong with what was typed, or throws an error of the server's.
  #ask(dialog, values, act) {
    const form = dialog.querySelector("form");
    const problem = dialog.querySelector(".problem");
    problem.textContent = "";
    for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
    form.onsubmit = async (event) => {
      event.preventDefault();
      problem.textContent = this.#chat.client.state.name === "online" ? "" : "Not connected: this goes on once it is.";
      try {
        const wrong = await act(form.elements);
        if (wrong) problem.textContent = wrong;
        else dialog.close();
      } catch (error) {
        problem.textContent = refusal(error);
      }
    };
    dialog.showModal();
  }
}

const refusal = ({ condition, text }) =>
  condition === "gone" ? "The connection was lost before the server answered. Try again."
    : `The server refused this (${condition}). ${text ?? ""}`;

function about(contact) {
  const { presence } = contact;
  if (presence) return presence.status ? `${SHOWS[presence.show]}: ${presence.status}` : SHOWS[presence.show];
  if (contact.asked) return "Asked, has not answered yet";
  if (!contact.listed) return "Not among your contacts";
  return "Offline";
}

function relation({ subscription, asked }) {
  if (subscription === "both") return "you see each other’s presence";
  if (subscription === "to") return "you see their presence";
  if (subscription === "from") return "they see your presence";
  return asked ? "asked, has not answered yet" : "no presence either way";
}
