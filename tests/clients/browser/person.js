// Somebody who uses the chat page: reads what is on it, clicks and types.

import assert from "node:assert/strict";

import { openPage, until } from "./world.js";

export class Person {
  static async at(url, user, options) {
    const person = new Person(await openPage(url, options), user);
    await person.logIn();
    return person;
  }

  constructor(page, user) {
    this.page = page;
    this.user = user;
    this.jid = `${user}@localhost`;
  }

  async fillIn(password = `secret-of-${this.user}`) {
    await this.page.fill("#login-form [name=jid]", this.jid);
    await this.page.fill("#login-form [name=password]", password);
    await this.page.click("#login-form button");
  }

  async logIn() {
    await this.fillIn();
    await this.online();
  }

  online() {
    return this.page.waitForSelector("html[data-connection=online] #app:not([hidden])");
  }

  async add(user, name = "") {
    await this.page.click("#add-contact");
    await this.page.fill("#add-dialog [name=jid]", user);
    await this.page.fill("#add-dialog [name=name]", name);
    await this.page.click("#add-dialog [type=submit]");
    await this.page.waitForSelector("#add-dialog", { state: "hidden" });
  }

  contact(label) {
    return this.page.locator(".contact", { has: this.page.locator("strong", { hasText: label }) });
  }

  async open(label) {
    await this.contact(label).click();
    await this.page.waitForSelector("#app[data-talk=open]");
  }

  async say(text) {
    await this.page.fill("#draft", text);
    await this.page.press("#draft", "Enter");
  }

  /// The messages in sight: `{ text, out, state }`.
  messages() {
    return this.page.$$eval(".message", (all) => all.map((message) => ({
      text: message.querySelector(".bubble p").textContent,
      out: message.classList.contains("out"),
      state: message.querySelector(".state")?.classList[1] ?? null,
      trouble: message.querySelector(".trouble p")?.textContent ?? null,
    })));
  }

  /// Waits until just these texts are there, each once and in this order.
  async reads(...texts) {
    const read = async () => (await this.messages()).map(({ text }) => text);
    await until(`${this.user} reads ${texts}`, async () => (await read()).includes(texts.at(-1))).catch(() => {});
    assert.deepEqual(await read(), texts, `what ${this.user} reads`);
  }

  /// Waits until what was said has come so far: "sending", "sent", "delivered", "failed".
  sees(text, state) {
    return until(`"${text}" of ${this.user} is ${state}`, async () => {
      const message = (await this.messages()).find((one) => one.out && one.text === text);
      return message?.state === state ? message : null;
    });
  }

  /// Waits until the page says this of its connection.
  status(words) {
    return this.page.waitForSelector(`#status:has-text(${JSON.stringify(words)})`);
  }

  text(selector) {
    return this.page.textContent(selector);
  }

  /// Sends stanzas that the page would not, from a session beside it, and waits until the server has them: `count`
  /// times what `make` returns, which gets `el`, `NS` and the number.
  async sendBeside(make, count = 1) {
    const maker = await this.page.evaluateHandle(`(${make})`);
    await this.page.evaluate(async ([user, make, count]) => {
      const { Client } = await import("/xmpp/client.js");
      const { el, NS } = await import("/xmpp/xml.js");
      const url = new URL("/xmpp-websocket", location.href.replace("http", "ws"));
      const account = { jid: `${user}@localhost`, secret: { password: `secret-of-${user}` } };
      let settled = 0;
      await new Promise((resolve) => {
        const nothing = () => {};
        const app = { changed: nothing, begin: nothing, stanza: nothing, unknown: nothing, refused: nothing };
        app.save = nothing;
        app.settled = (ids) => {
          settled += ids.length;
          if (settled >= count) resolve();
        };
        const client = new Client({ url, ...account }, app);
        client.start();
        for (let n = 1; n <= count; n++) {
          const stanza = make(el, NS, n);
          if (!stanza.hasAttribute("id")) stanza.setAttribute("id", `beside-${n}`);
          client.send(stanza, { keep: true });
        }
      });
    }, [this.user, maker, count]);
  }

  /// What the session is called at the server.
  async session() {
    return (await this.#stored("session")).sm.id;
  }

  /// All that was said with somebody, in sight or not: `{ body, out, state }`.
  history(user) {
    return this.#stored(`with:${user}@localhost`);
  }

  /// Waits until the server has all that was sent.
  quiet() {
    return until("nothing is on its way", async () => (await this.#stored("session")).sm.queue.length === 0);
  }

  #stored(key) {
    return this.page.evaluate((key) => {
      dispatchEvent(new Event("pagehide"));
      return JSON.parse(sessionStorage.getItem(`chat:${key}`));
    }, key);
  }
}

/// Two who know each other, with their conversation open.
export async function couple(url, { left = {}, right = {} } = {}) {
  const romeo = await Person.at(url, "romeo", left);
  const juliet = await Person.at(right.url ?? url, "juliet", right);
  await romeo.add("juliet");
  await juliet.page.click("#requests .primary");
  await until("both are online to each other", async () =>
    (await romeo.text("#peer-presence")) === "Online" && (await juliet.contact("romeo").count()) === 1);
  await juliet.open("romeo");
  await until("juliet sees romeo", async () => (await juliet.text("#peer-presence")) === "Online");
  return [romeo, juliet];
}
