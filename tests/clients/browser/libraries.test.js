// Other clients for browsers, served from another origin: xmpp.js, Strophe, and the whole of Converse.

import assert from "node:assert/strict";
import { after, afterEach, test } from "node:test";

import { Person } from "./person.js";
import { endAll, endBrowser, Network, openPage, picture, Server, site, until } from "./world.js";

afterEach(endAll);
after(endBrowser);

const head = "<!doctype html><html lang=en><meta charset=utf-8>";
const pages = {
  "/xmppjs": `${head}<script src="/@xmpp/client/dist/xmpp.min.js"></script><script>
    const { client, xml } = XMPP;
    window.logIn = async (service, username, password) => {
      window.read = [];
      window.xmpp = client({ service, domain: "localhost", username, password });
      xmpp.on("error", () => {});
      xmpp.on("stanza", (stanza) => {
        const body = stanza.is("message") && stanza.getChildText("body");
        if (body) read.push(body);
      });
      xmpp.on("online", () => xmpp.send(xml("presence")));
      return String(await xmpp.start());
    };
    window.say = (to, text) => xmpp.send(xml("message", { to, type: "chat" }, xml("body", {}, text)));
  </script>`,
  "/strophe": `${head}<script type=module>
    import { Strophe, $msg, $pres } from "/strophe.js/dist/strophe.esm.js";
    window.logIn = (service, username, password) => new Promise((resolve, reject) => {
      window.read = [];
      window.connection = new Strophe.Connection(service);
      connection.addHandler((stanza) => {
        const body = stanza.querySelector("body");
        if (body) read.push(body.textContent);
        return true;
      }, null, "message");
      connection.connect(username + "@localhost", password, (status, reason) => {
        if (status === Strophe.Status.CONNECTED) {
          connection.send($pres());
          resolve(connection.jid);
        } else if ([Strophe.Status.AUTHFAIL, Strophe.Status.CONNFAIL].includes(status)) {
          reject(new Error(reason));
        }
      });
    });
    window.say = (to, text) => connection.send($msg({ to, type: "chat" }).c("body").t(text));
  </script>`,
  "/converse": `${head}<link rel=stylesheet href="/converse.min.css"><body><converse-root></converse-root>
    <script type=module>
    import converse from "/converse.min.js";
    converse.initialize({ websocket_url: new URLSearchParams(location.search).get("socket"), assets_path: "/",
      discover_connection_methods: false, view_mode: "fullscreen", i18n: "en", loglevel: "fatal", enable_smacks: true,
      allow_registration: false, muc_domain: "none.localhost" });
  </script>`,
};

/// The server, a way to it that can be cut, and a site whose pages may use it.
async function world() {
  const origin = await site(pages, "", "converse.js/dist");
  const server = await Server.start("--origin", origin);
  const network = await Network.to(server.port);
  const socket = (url) => `${url.replace("http", "ws")}xmpp-websocket`;
  return { origin, server, network, direct: socket(server.url), breakable: socket(network.url) };
}

async function library(origin, name, socket, user) {
  const page = await openPage(`${origin}/${name}`);
  await page.waitForFunction(() => window.logIn);
  const jid = await page.evaluate(([service, name, password]) => logIn(service, name, password),
    [socket, user, `secret-of-${user}`]);
  assert.ok(jid.startsWith(`${user}@localhost/`), jid);
  return {
    page,
    say: (to, text) => page.evaluate(([jid, body]) => say(jid, body), [`${to}@localhost`, text]),
    reads: (...texts) => until(`${user} reads ${texts}`, async () =>
      JSON.stringify(await page.evaluate(() => read)) === JSON.stringify(texts)),
  };
}

async function converse(origin, socket, user) {
  const page = await openPage(`${origin}/converse?socket=${encodeURIComponent(socket)}`);
  await page.fill("input[name=jid]", `${user}@localhost`);
  await page.fill("input[name=password]", `secret-of-${user}`);
  await page.click("#converse-login [type=submit], form.converse-form [type=submit]");
  await page.waitForSelector("#converse-roster");
  return page;
}

const texts = (page) => page.$$eval(".chat-msg__text", (all) => all.map((each) => each.textContent.trim()));

for (const name of ["xmppjs", "strophe"]) {
  test(`${name} logs in and talks to the chat page, both ways`, async () => {
    const { origin, server, direct } = await world();
    const romeo = await library(origin, name, direct, "romeo");
    const juliet = await Person.at(server.url, "juliet");
    await romeo.say("juliet", "But soft");
    await juliet.open("romeo");
    await juliet.reads("But soft");
    await juliet.say("O Romeo & <Romeo>");
    await romeo.reads("O Romeo & <Romeo>");
  });
}

test("xmpp.js and Strophe talk to each other", async () => {
  const { origin, direct } = await world();
  const romeo = await library(origin, "xmppjs", direct, "romeo");
  const juliet = await library(origin, "strophe", direct, "juliet");
  for (let n = 0; n < 20; n++) {
    await romeo.say("juliet", `left ${n}`);
    await juliet.say("romeo", `right ${n}`);
  }
  await juliet.reads(...Array.from({ length: 20 }, (_, n) => `left ${n}`));
  await romeo.reads(...Array.from({ length: 20 }, (_, n) => `right ${n}`));
});

test("xmpp.js resumes when it is cut", async () => {
  const { origin, direct, breakable, network } = await world();
  const romeo = await library(origin, "xmppjs", breakable, "romeo");
  const juliet = await library(origin, "strophe", direct, "juliet");
  const resumed = romeo.page.evaluate(() => new Promise((resolve) => {
    xmpp.streamManagement.on("resumed", () => resolve(true));
  }));
  network.refuse();
  await juliet.say("romeo", "while you were away");
  network.accept();
  assert.ok(await resumed);
  await romeo.reads("while you were away");
});

test("the whole of Converse: log in, a subscription, messages both ways, a cut", async () => {
  const { origin, server, breakable, network } = await world();
  const mercutio = await converse(origin, breakable, "mercutio");
  const romeo = await Person.at(server.url, "romeo");
  await romeo.add("mercutio");
  const request = mercutio.locator("#converse-roster .list-item", { has: mercutio.locator(".accept-xmpp-request") });
  await request.locator("button").first().click();
  await mercutio.click(".accept-xmpp-request");
  await mercutio.click(".modal.show [type=submit]");
  await until("romeo sees mercutio", async () => (await romeo.text("#peer-presence")) === "Online");
  await romeo.say("Good morrow, cousin.");
  await mercutio.click("#converse-roster .open-chat:has-text('romeo')");
  await until("it is shown", async () => (await texts(mercutio)).includes("Good morrow, cousin."));
  await mercutio.fill("textarea.chat-textarea", "Signior Romeo, bon jour!");
  await mercutio.press("textarea.chat-textarea", "Enter");
  await romeo.reads("Good morrow, cousin.", "Signior Romeo, bon jour!");
  await romeo.sees("Good morrow, cousin.", "delivered");
  await picture(mercutio, "converse");

  network.cut();
  await romeo.say("Art thou there?");
  await until("it comes after the cut", async () => (await texts(mercutio)).includes("Art thou there?"));
  assert.equal((await texts(mercutio)).filter((text) => text === "Art thou there?").length, 1);
});

test("Converse shows what xmpp.js and Strophe write", async () => {
  const { origin, direct } = await world();
  const mercutio = await converse(origin, direct, "mercutio");
  const romeo = await library(origin, "xmppjs", direct, "romeo");
  const juliet = await library(origin, "strophe", direct, "juliet");
  for (const [user, other] of [["romeo", romeo], ["juliet", juliet]]) {
    await other.say("mercutio", `from ${user}`);
    await mercutio.click(`#converse-roster .open-chat:has-text('${user}')`);
    await until(`it shows ${user}`, async () => (await texts(mercutio)).includes(`from ${user}`));
    await mercutio.fill("textarea.chat-textarea", `to ${user}`);
    await mercutio.press("textarea.chat-textarea", "Enter");
    await other.reads(`to ${user}`);
  }
});
