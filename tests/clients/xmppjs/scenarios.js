// Scenarios that @xmpp/client plays against a running server.
//
// Usage: node scenarios.js STARTTLS-PORT DIRECT-TLS-PORT, with NODE_EXTRA_CA_CERTS naming the server's
// certificate. The accounts user0@localhost … exist, each with the password "secret-of-NAME".

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { client, xml } from "@xmpp/client";

const [starttls, directTls] = process.argv.slice(2);
// For failures only: no scenario that passes waits for it.
const PATIENCE = 20_000;
const open = new Set();

class User {
  constructor(name, resource, options = {}) {
    const { service = `xmpp://127.0.0.1:${starttls}`, password = `secret-of-${name}`, device = randomUUID() } = options;
    this.stanzas = [];
    this.waiting = [];
    // The mechanisms that it has logged in by.
    this.mechanisms = [];
    const userAgent = xml("user-agent", { id: device });
    this.xmpp = client({ service, domain: "localhost", resource, username: name, password, userAgent });
    this.xmpp.on("send", (element) => {
      if (element.is("authenticate", "urn:xmpp:sasl:2")) this.mechanisms.push(element.attrs.mechanism);
    });
    this.xmpp.reconnect.stop();
    // It listens for the answer to its header only when it is told that the header is written; a server may be quicker.
    const { xmpp } = this;
    xmpp.write = async (text) => {
      if (xmpp.status === "closing") throw new Error("the stream is closing");
      xmpp.socket.write(text);
    };
    this.error = null;
    this.xmpp.on("error", (error) => { this.error = error; });
    this.xmpp.on("stanza", (stanza) => {
      this.stanzas.push(stanza);
      for (const look of this.waiting) look();
    });
    open.add(this);
  }

  static async login(...options) {
    const user = new User(...options);
    user.jid = await inTime("a session", user.xmpp.start());
    return user;
  }

  async available() {
    await this.send(xml("presence"));
    await this.expect("own presence", (s) => s.is("presence") && s.attrs.from === this.jid.toString());
  }

  send(stanza) { return this.xmpp.send(stanza); }

  chat(to, text) { return this.send(xml("message", { type: "chat", to: to.toString() }, xml("body", {}, text))); }

  // Takes the first stanza that matches out of what has come in, or waits for it.
  expect(what, matches) {
    return inTime(what, new Promise((resolve) => {
      const look = () => {
        const at = this.stanzas.findIndex(matches);
        if (at < 0) return;
        this.waiting = this.waiting.filter((other) => other !== look);
        resolve(this.stanzas.splice(at, 1)[0]);
      };
      this.waiting.push(look);
      look();
    }));
  }

  message() { return this.expect("a message", (s) => s.is("message")); }

  async close() {
    open.delete(this);
    await inTime("the close", this.xmpp.stop());
  }
}

function inTime(what, work) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE); });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

const scenarios = {
  async messages() {
    const one = await User.login("user50", "a");
    const two = await User.login("user51", "b");
    await one.available();
    await two.available();
    for (const to of [two.jid, two.jid.bare()]) {
      await one.chat(to, `to ${to} <&> ü`);
      const got = await two.message();
      assert.equal(got.getChildText("body"), `to ${to} <&> ü`);
      assert.equal(got.attrs.from, one.jid.toString());
      assert.equal(got.attrs.to, to.toString());
    }
    for (let n = 0; n < 100; n++) await two.chat(one.jid, String(n));
    for (let n = 0; n < 100; n++) assert.equal((await one.message()).getChildText("body"), String(n));
    await one.close();
    await two.close();
  },

  async direct_tls() {
    const user = await User.login("user52", "a", { service: `xmpps://localhost:${directTls}` });
    await user.available();
    await user.close();
  },

  async requests() {
    const user = await User.login("user53", "a");
    const { iqCaller } = user.xmpp;
    const roster = await iqCaller.get(xml("query", "jabber:iq:roster"));
    assert.ok(roster?.is("query", "jabber:iq:roster"));
    await iqCaller.get(xml("ping", "urn:xmpp:ping"), "localhost");
    await assert.rejects(
      iqCaller.get(xml("query", "urn:example:nothing-knows-this"), "localhost"),
      { condition: "service-unavailable" },
    );
    await user.close();
  },

  async conflict() {
    const device = randomUUID();
    const old = await User.login("user54", "phone", { device });
    const gone = new Promise((resolve) => old.xmpp.once("disconnect", resolve));
    const now = await User.login("user54", "phone", { device });
    // The resource is the server's: what conflicts is the client.
    assert.match(now.jid.toString(), /^user54@localhost\/phone\/./);
    await inTime("the end of the older session", gone);
    assert.equal(old.error?.condition, "conflict");
    open.delete(old);
    await now.chat(now.jid, "to myself");
    assert.equal((await now.message()).getChildText("body"), "to myself");
    await now.close();
  },

  async tokens() {
    const device = randomUUID();
    let token;
    const login = async (password) => {
      const user = new User("user56", "phone", { device, password });
      user.xmpp.fast.fetchToken = async () => token;
      user.xmpp.fast.saveToken = async (new_token) => { token = new_token; };
      user.xmpp.fast.deleteToken = async () => { token = undefined; };
      user.jid = await inTime("a session", user.xmpp.start());
      await user.chat(user.jid, "to myself");
      await user.message();
      await user.close();
      return user;
    };
    assert.deepEqual((await login()).mechanisms, ["SCRAM-SHA-1"]);
    assert.equal(token.mechanism, "HT-SHA-256-NONE");
    for (let n = 0; n < 3; n++) assert.deepEqual((await login("forgotten")).mechanisms, ["HT-SHA-256-NONE"]);
    // One that was forged is refused; the password is asked for, and gets another.
    const right = token;
    token = { ...token, token: token.token.slice(0, -1) + (token.token.endsWith("A") ? "B" : "A") };
    assert.deepEqual((await login()).mechanisms, ["HT-SHA-256-NONE", "SCRAM-SHA-1"]);
    assert.notEqual(token.token, right.token);
  },

  async resumption() {
    const one = await User.login("user57", "phone");
    const two = await User.login("user58", "desk");
    await one.available();
    await two.available();
    const { streamManagement } = one.xmpp;
    assert.ok(streamManagement.enabled && streamManagement.id);
    for (let n = 0; n < 5; n++) {
      const gone = new Promise((resolve) => one.xmpp.once("disconnect", resolve));
      one.xmpp.socket.socket.destroy();
      await inTime("the loss of the transport", gone);
      await two.chat(one.jid, `${n} while away`);
      const resumed = new Promise((resolve) => streamManagement.once("resumed", resolve));
      await inTime("a transport", one.xmpp.connect(one.xmpp.options.service).then(() => one.xmpp.open({ domain: "localhost" })));
      await inTime("the resumption", resumed);
      assert.equal((await one.message()).getChildText("body"), `${n} while away`);
      await one.chat(two.jid, `${n} back again`);
      assert.equal((await two.message()).getChildText("body"), `${n} back again`);
    }
    await one.close();
    await two.close();
  },

  async wrong_password() {
    const user = new User("user55", "a", { password: "not it" });
    await assert.rejects(inTime("the refusal", user.xmpp.start()), { condition: "not-authorized" });
    await user.close();
    await (await User.login("user55", "a")).close();
  },
};

let passed = 0;
let failed = 0;
for (const [name, scenario] of Object.entries(scenarios)) {
  try {
    await scenario();
    passed++;
    console.log(`ok ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED ${name}:`, error);
  }
  for (const user of [...open]) await user.close().catch(() => {});
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
