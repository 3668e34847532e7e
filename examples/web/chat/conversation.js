// One conversation: the part of its messages that is in sight, and what is being written.

import { $, clockTime, coalesced, dayName, dayOf, h, icon } from "./dom.js";
import { DELIVERED, FAILED, SENDING, SENT } from "./model.js";

/// Messages that are drawn at once, and how many there may be in the page.
const STEP = 80;
const MOST = 400;
/// Pixels from an end at which more is drawn.
const NEAR = 600;
/// Messages of one hand within this time stand together.
const TOGETHER = 5 * 60_000;
/// Characters of a message that are shown unasked.
const LONG = 3000;

/// Characters of a draft that browsers can no longer wrap in no time.
const HUGE = 50_000;

const STATES = {
  [SENDING]: "Sending",
  [SENT]: "The server has it",
  [DELIVERED]: "Delivered",
  [FAILED]: "Not delivered",
};

export class Conversation {
  #chat = null;
  #contact = null;
  // What is drawn, in order: `{ message, element }`.
  #rows = [];
  #byMessage = new WeakMap();
  #changed = new Set();
  #atEnd = true;
  #firstNew = null;
  #scroll = $("scroll");
  #log = $("log");
  #draft = $("draft");
  #draw = coalesced(() => this.#drawChanged());

  constructor({ leave }) {
    this.#scroll.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#stick()).observe(this.#scroll);
    new ResizeObserver(() => this.#stick()).observe(this.#log);
    $("newest").addEventListener("click", () => this.#showNewest());
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#draft.addEventListener("input", () => {
      this.#fitDraft();
      this.#problem("");
      this.#chat.composing(this.#contact, this.#draft.value);
    });
    this.#draft.addEventListener("keydown", (event) => {
      // Enter that ends the input of a character is none of ours.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#send();
      }
    });
    $("talk").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) leave();
    });
  }

  get contact() {
    return this.#contact;
  }

  /// Shows the conversation with somebody, or none.
  open(chat, contact) {
    this.#chat = chat;
    this.#contact = contact;
    this.#changed.clear();
    this.#rows = [];
    if (!contact) return;
    this.#firstNew = contact.unread > 0 ? contact.messages.at(-contact.unread) : null;
    this.#draft.value = contact.draft;
    this.#problem("");
    this.#fitDraft();
    this.#showNewest();
  }

  focus() {
    this.#draft.focus({ preventScroll: true });
  }

  /// A message is new, or another than it was.
  message(contact, message) {
    if (contact !== this.#contact) return;
    this.#changed.add(message);
    this.#draw();
  }

  // What is written

  #send() {
    const body = this.#draft.value.trim();
    if (body === "" || !this.#contact) return;
    const problem = this.#chat.say(this.#contact, body);
    this.#problem(problem ?? "");
    if (problem) return;
    this.#draft.value = "";
    this.#contact.draft = "";
    this.#fitDraft();
    this.#showNewest();
  }

  #problem(text) {
    $("composer-problem").textContent = text;
  }

  #fitDraft() {
    this.#draft.classList.toggle("huge", this.#draft.value.length > HUGE);
    if (CSS.supports("field-sizing", "content")) return;
    this.#draft.style.height = "auto";
    this.#draft.style.height = `${this.#draft.scrollHeight}px`;
  }

  // What is drawn

  #showNewest() {
    const { messages } = this.#contact;
    const shown = messages.slice(-STEP);
    const isShown = this.#rows.length > 0 && this.#rows.at(-1).message === messages.at(-1) &&
      this.#byMessage.has(shown[0]);
    this.#atEnd = true;
    if (!isShown) {
      // Nobody wants all of it read out.
      this.#log.setAttribute("aria-live", "off");
      this.#rows = [];
      this.#byMessage = new WeakMap();
      this.#log.replaceChildren();
      this.#append(shown);
      setTimeout(() => this.#log.setAttribute("aria-live", "polite"), 100);
    }
    this.#stick();
    this.#showArrow();
  }

  #drawChanged() {
    const { messages } = this.#contact ?? { messages: [] };
    let isNew = false;
    for (const message of this.#changed) {
      const element = this.#byMessage.get(message);
      if (element) this.#fill(element, message);
      else isNew = true;
    }
    this.#changed.clear();
    if (!isNew) return;
    const drawn = messages.lastIndexOf(this.#rows.at(-1)?.message);
    if (this.#atEnd && (drawn < 0 || messages.length - drawn > STEP)) {
      this.#showNewest();
    } else if (this.#rows.length < MOST || this.#atEnd) {
      this.#append(messages.slice(drawn + 1, drawn + 1 + STEP));
      if (this.#atEnd) this.#trim("start");
    }
    this.#stick();
    this.#showArrow();
  }

  #append(messages) {
    const rows = this.#build(messages);
    this.#rows.push(...rows);
    this.#log.append(...rows.map(({ element }) => element));
  }

  #build(messages) {
    const all = this.#contact.messages;
    let at = all.indexOf(messages[0]);
    return messages.map((message) => {
      const before = all[at - 1];
      at++;
      const element = this.#fill(h("div", { class: "message" }), message);
      const isNewDay = !before || dayOf(before.at) !== dayOf(message.at);
      const isSoon = !isNewDay && before.out === message.out && message.at - before.at < TOGETHER;
      element.classList.toggle("follows", isSoon && message !== this.#firstNew);
      if (message === this.#firstNew) element.prepend(h("p", { class: "new" }, "New"));
      if (isNewDay) element.prepend(h("p", { class: "day" }, dayName(message.at)));
      this.#byMessage.set(message, element);
      return { message, element };
    });
  }

  #fill(element, message) {
    const title = STATES[message.state];
    const label = { class: `state ${message.state}`, role: "img", title, "aria-label": title };
    const state = message.out ? h("span", label, icon(message.state)) : null;
    const time = h("time", { dateTime: new Date(message.at).toISOString() }, clockTime(message.at));
    const bubble = element.querySelector(".bubble");
    element.classList.toggle("out", message.out);
    element.classList.toggle("failed", message.state === FAILED);
    if (bubble) bubble.querySelector("footer").replaceChildren(time, state ?? "");
    else element.append(h("div", { class: "bubble", dir: "auto" }, this.#body(message), h("footer", {}, time, state)));
    element.querySelector(".trouble")?.remove();
    if (message.state === FAILED) {
      element.append(h("div", { class: "trouble" }, h("p", {}, message.error),
        h("button", { type: "button", class: "link", onclick: () => this.#again(message) }, "Send again")));
    }
    return element;
  }

  #body({ body }) {
    if (body.length <= LONG) return h("p", {}, ...linked(body));
    const all = `Show all ${body.length.toLocaleString("en")} characters`;
    const more = h("button", { type: "button", class: "link" }, all);
    const part = h("p", {}, `${body.slice(0, LONG / 3)}…`);
    more.addEventListener("click", () => {
      part.textContent = body;
      more.remove();
    });
    return h("div", {}, part, more);
  }

  #again(message) {
    const problem = this.#chat.again(this.#contact, message);
    this.#problem(problem ?? "");
    if (problem) return;
    this.#byMessage.get(message)?.remove();
    this.#rows = this.#rows.filter((row) => row.message !== message);
    this.#showNewest();
    this.focus();
  }

  // What is in sight

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroll;
    const below = scrollHeight - scrollTop - clientHeight;
    const { messages } = this.#contact ?? { messages: [] };
    const isLast = this.#rows.at(-1)?.message === messages.at(-1);
    // Who is at the end stays there, though more has come that is not drawn yet.
    this.#atEnd = below < 48 && (this.#atEnd || isLast);
    if (scrollTop < NEAR) this.#drawEarlier(messages);
    else if (below < NEAR && !isLast && !this.#atEnd) this.#drawLater(messages);
    this.#showArrow();
  }

  #drawEarlier(messages) {
    const first = messages.indexOf(this.#rows[0]?.message);
    if (first <= 0) return;
    const rows = this.#build(messages.slice(Math.max(0, first - STEP), first));
    const height = this.#scroll.scrollHeight;
    const top = this.#scroll.scrollTop;
    this.#log.setAttribute("aria-live", "off");
    this.#log.prepend(...rows.map(({ element }) => element));
    this.#rows.unshift(...rows);
    this.#scroll.scrollTop = top + this.#scroll.scrollHeight - height;
    this.#trim("end");
    setTimeout(() => this.#log.setAttribute("aria-live", "polite"), 100);
  }

  #drawLater(messages) {
    const last = messages.indexOf(this.#rows.at(-1)?.message);
    this.#append(messages.slice(last + 1, last + 1 + STEP));
    this.#trim("start");
  }

  /// Takes out what is too much, at the end where nobody looks.
  #trim(end) {
    const excess = this.#rows.length - MOST;
    if (excess <= 0) return;
    const height = this.#scroll.scrollHeight;
    const top = this.#scroll.scrollTop;
    const rows = end === "start" ? this.#rows.splice(0, excess) : this.#rows.splice(-excess);
    for (const { message, element } of rows) {
      this.#byMessage.delete(message);
      element.remove();
    }
    if (end === "start") this.#scroll.scrollTop = top - (height - this.#scroll.scrollHeight);
  }

  #stick() {
    if (this.#atEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  #showArrow() {
    $("newest").hidden = this.#atEnd;
  }
}

/// The text, with what looks like an address of the web as a link. Controls that turn text around end it: it is read as
/// it is written.
function linked(text) {
  return text.split(/(\bhttps?:\/\/[^\s<>"\p{Bidi_Control}]+[^\s<>"\p{Bidi_Control}.,:;!?)\]}'’”])/u).map((part, at) =>
    at % 2 === 0 ? part : h("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part));
}
