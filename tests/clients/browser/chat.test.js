// The chat page of examples/web, by hand of two users in two contexts.

import assert from "node:assert/strict";
import { after, afterEach, test } from "node:test";

import { couple, Person } from "./person.js";
import { endAll, endBrowser, freePort, Network, openPage, picture, Server, site, until } from "./world.js";

afterEach(endAll);
after(endBrowser);

const calm = (...people) => {
  for (const { page } of people) assert.deepEqual(page.troubles, []);
};

test("a wrong password is told in plain words, and the right one goes in", async () => {
  const server = await Server.start();
  const romeo = new Person(await openPage(server.url), "romeo");
  await romeo.fillIn("wrong");
  await until("a reason", async () => (await romeo.text("#login-problem")) === "The address or the password is wrong.");
  await picture(romeo.page, "chat-wrong-password");
  await romeo.logIn();
  assert.equal(await romeo.text("#own-name"), "romeo@localhost");
  const stored = await romeo.page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }));
  assert.ok(!stored.includes("secret-of"), stored);
  calm(romeo);
});

test("over plain HTTP on a local network, where browsers have no cryptography, it logs in as well", async () => {
  const port = await freePort();
  const server = await Server.start("--listen", `127.0.0.1:${port}`, "--origin", `http://chat.test:${port}`);
  const romeo = new Person(await openPage(`http://chat.test:${server.port}/`), "romeo");
  assert.equal(await romeo.page.evaluate(() => globalThis.isSecureContext || Boolean(crypto.subtle)), false);
  await romeo.logIn();
  calm(romeo);
});

test("a password that can only be sent is not stored: after a reload it is asked for, then all goes on", async () => {
  const server = await Server.start("--mechanisms", "PLAIN");
  const [romeo, juliet] = await couple(server.url);
  await romeo.say("before");
  await juliet.reads("before");
  const session = await juliet.session();
  const stored = await juliet.page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }));
  assert.ok(!stored.includes("secret-of"), stored);
  await juliet.page.reload();
  assert.equal(await juliet.page.inputValue("#login-form [name=jid]"), "juliet@localhost");
  await romeo.say("meanwhile");
  await juliet.logIn();
  await juliet.status("Resumed: nothing was lost.");
  await juliet.reads("before", "meanwhile");
  assert.equal(await juliet.session(), session);
  calm(romeo, juliet);
});

test("a subscription, presence, and messages both ways with their states", async () => {
  const server = await Server.start();
  const romeo = await Person.at(server.url, "romeo");
  const juliet = await Person.at(server.url, "juliet", { desktop: false, dark: true });
  await romeo.add("juliet", "Juliet Capulet");
  await until("she is asked", async () => (await romeo.text("#peer-presence")) === "Asked, has not answered yet");
  await juliet.page.waitForSelector("#requests li:has-text('romeo@localhost')");
  await picture(juliet.page, "chat-request");
  await juliet.page.click("#requests .primary");
  await romeo.status("Juliet Capulet has accepted your request.");
  await until("romeo sees her", async () => (await romeo.text("#peer-presence")) === "Online");
  assert.equal(await juliet.page.locator("#requests li").count(), 0);
  await until("juliet sees him", async () => (await juliet.contact("romeo").textContent()).includes("Online"));
  assert.equal(await juliet.text("#status"), "", "she has not asked first");

  await romeo.say("But soft, what light through yonder window breaks?");
  await juliet.open("romeo");
  await juliet.reads("But soft, what light through yonder window breaks?");
  await romeo.sees("But soft, what light through yonder window breaks?", "delivered");
  await juliet.say("O Romeo, Romeo, wherefore art thou Romeo?");
  await juliet.sees("O Romeo, Romeo, wherefore art thou Romeo?", "delivered");
  await romeo.reads("But soft, what light through yonder window breaks?", "O Romeo, Romeo, wherefore art thou Romeo?");

  await juliet.page.fill("#draft", "Deny");
  await until("romeo sees her write", async () => (await romeo.text("#peer-presence")) === "is writing…");
  await picture(romeo.page, "chat-desktop");
  await picture(juliet.page, "chat-phone");
  await juliet.page.click("#back");
  await juliet.page.waitForSelector("#app[data-talk=none]");
  await juliet.page.selectOption("#own-show", "away");
  await until("romeo sees her away", async () => (await romeo.text("#peer-presence")) === "Away");
  calm(romeo, juliet);
});

test("who declines is not seen, and who removes a contact sees it no more", async () => {
  const server = await Server.start();
  const romeo = await Person.at(server.url, "romeo");
  const juliet = await Person.at(server.url, "juliet");
  await romeo.add("juliet");
  await juliet.page.click("#requests .plain");
  await until("the request is gone", async () => (await juliet.page.locator("#requests li").count()) === 0);
  await until("romeo is told", async () => (await romeo.text("#peer-presence")) === "Offline");
  await romeo.page.click("#peer-more");
  await romeo.page.click("#peer-remove");
  await until("she is no contact", async () => (await romeo.contact("juliet").count()) === 0);
  calm(romeo, juliet);
});

test("a message to who is away waits, with the time at which it was sent", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  await juliet.page.click("#log-out");
  await juliet.page.waitForSelector("#login:not([hidden])");
  await until("she is gone", async () => (await romeo.text("#peer-presence")) === "Offline");
  await romeo.say("Good night");
  await romeo.sees("Good night", "sent");
  // The clock of her device runs on; the message keeps its time.
  await juliet.page.clock.install({ time: Date.now() + 3 * 86_400_000 });
  await juliet.page.reload();
  await juliet.logIn();
  assert.equal(await juliet.contact("romeo").locator(".count").textContent(), "1");
  await juliet.open("romeo");
  await juliet.reads("Good night");
  const stamp = await juliet.page.getAttribute(".message time", "datetime");
  assert.ok(Math.abs(Date.parse(stamp) - Date.now()) < 60_000, stamp);
  calm(romeo, juliet);
});

test("two devices of one account see the same", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  const phone = await Person.at(server.url, "romeo", { desktop: false });
  await phone.open("juliet");
  await romeo.say("from the desk");
  await phone.reads("from the desk");
  await juliet.say("to both");
  await phone.reads("from the desk", "to both");
  await romeo.reads("from the desk", "to both");
  await phone.sees("from the desk", "delivered");
  calm(romeo, juliet, phone);
});

test("a connection that is cut is resumed, and nothing is lost or doubled", async () => {
  const server = await Server.start();
  const network = await Network.to(server.port);
  const [romeo, juliet] = await couple(server.url, { right: { url: network.url } });
  const session = await juliet.session();
  const said = [];
  for (let round = 0; round < 3; round++) {
    // Some of it is on its way when the network hangs, some is said while there is none.
    network.freeze();
    await juliet.say(`from juliet ${round}`);
    await romeo.say(`from romeo ${round}`);
    await juliet.sees(`from juliet ${round}`, "sending");
    network.refuse();
    await juliet.status("Reconnecting…");
    if (round === 0) await picture(juliet.page, "chat-reconnecting");
    await juliet.say(`from juliet without a network ${round}`);
    await romeo.say(`from romeo without a network ${round}`);
    network.thaw();
    network.accept();
    await juliet.status("Resumed: nothing was lost.");
    if (round === 0) await picture(juliet.page, "chat-resumed");
    for (const person of [juliet, romeo]) {
      for (const when of ["", " without a network"]) {
        await person.sees(`from ${person.user}${when} ${round}`, "delivered");
      }
    }
    said.push(...["from juliet", "from juliet without a network", "from romeo", "from romeo without a network"]
      .map((text) => `${text} ${round}`));
  }
  for (const person of [romeo, juliet]) {
    assert.deepEqual((await person.messages()).map(({ text }) => text).sort(), said.toSorted(), person.user);
  }
  assert.equal(await juliet.session(), session, "it is the same session");
  assert.equal(await romeo.text("#peer-presence"), "Online", "nobody has seen her go");
  calm(romeo, juliet);
});

test("a connection that is cut again and again, at any byte, gives each message once and in order", async (t) => {
  const server = await Server.start("--no-limits");
  const network = await Network.to(server.port);
  const [romeo, juliet] = await couple(server.url, { right: { url: network.url } });
  const talk = ({ page }, count) => page.evaluate(async (count) => {
    for (let n = 0; n < count; n++) {
      document.getElementById("draft").value = `number ${n}`;
      document.getElementById("composer").requestSubmit();
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  }, count);
  let [talking, cuts] = [true, 0];
  const both = Promise.all([talk(romeo, 100), talk(juliet, 100)]).then(() => { talking = false; });
  while (talking) {
    network.cutAfter(Math.floor(Math.random() * 12_000));
    await until("it is cut, or they are done", async () =>
      !talking || await juliet.page.evaluate(() => document.documentElement.dataset.connection === "waiting"));
    cuts++;
    await juliet.page.evaluate(() => dispatchEvent(new Event("online")));
  }
  await both;
  network.cutAfter(Infinity);
  const numbers = Array.from({ length: 100 }, (_, n) => `number ${n}`);
  for (const [person, other] of [[romeo, "juliet"], [juliet, "romeo"]]) {
    const said = async (out) => (await person.history(other)).filter((one) => one.out === out).map(({ body }) => body);
    await until(`${person.user} has read the last`, async () => (await said(false)).at(-1) === numbers.at(-1));
    assert.deepEqual(await said(false), numbers, `what ${person.user} read`);
    assert.deepEqual(await said(true), numbers, `what ${person.user} said`);
    await person.sees(numbers.at(-1), "delivered");
  }
  t.diagnostic(`${cuts} cuts`);
  calm(romeo, juliet);
});

test("a laptop that has slept finds out that its connection is dead", async () => {
  const server = await Server.start();
  const network = await Network.to(server.port);
  const [romeo, juliet] = await couple(server.url, { right: { url: network.url } });
  // Else what is on its way would give the connection away.
  await juliet.quiet();
  network.freeze();
  await romeo.say("while she sleeps");
  await romeo.sees("while she sleeps", "sent");
  network.thaw();
  // Nothing tells the browser; it is looked at again.
  await juliet.page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await juliet.status("Resumed: nothing was lost.");
  await juliet.reads("while she sleeps");
  await romeo.sees("while she sleeps", "delivered");
  calm(romeo, juliet);
});

test("a proxy that cuts what is idle costs nothing", async () => {
  const server = await Server.start();
  const network = await Network.to(server.port, { idle: 700 });
  const [romeo, juliet] = await couple(server.url, { right: { url: network.url } });
  const said = [];
  for (let round = 0; round < 3; round++) {
    await juliet.status("Reconnecting…");
    await romeo.say(`word ${round}`);
    said.push(`word ${round}`);
    await juliet.reads(...said);
  }
  calm(romeo, juliet);
});

test("a page that hears nothing asks before a proxy of 60 seconds would cut", async () => {
  const server = await Server.start();
  const romeo = new Person(await openPage("about:blank"), "romeo");
  await romeo.page.clock.install();
  const asked = [];
  romeo.page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => {
    if (payload.startsWith("<r ")) asked.push(payload);
  }));
  await romeo.page.goto(server.url);
  await romeo.logIn();
  await romeo.page.clock.runFor(5_000);
  const before = asked.length;
  await romeo.page.clock.runFor(45_000);
  await until("it asks", () => asked.length > before);
  calm(romeo);
});

test("a tab that is reloaded resumes with all it had", async () => {
  const server = await Server.start();
  const network = await Network.to(server.port);
  const [romeo, juliet] = await couple(server.url, { right: { url: network.url } });
  await romeo.say("before");
  await juliet.reads("before");
  const session = await juliet.session();
  await juliet.page.reload();
  await juliet.status("Resumed: nothing was lost.");
  await juliet.reads("before");
  assert.equal(await juliet.session(), session, "it is the same session");

  // What the server has not got yet survives a reload, and so does what waits for the page.
  network.freeze();
  await juliet.say("on its way");
  await romeo.say("to a page that is gone");
  await juliet.page.goto("about:blank");
  await romeo.say("to no page at all");
  network.thaw();
  await juliet.page.goBack();
  await juliet.status("Resumed: nothing was lost.");
  await juliet.sees("on its way", "delivered");
  await romeo.sees("to no page at all", "delivered");
  const texts = (await juliet.messages()).map(({ text }) => text);
  assert.deepEqual(texts.toSorted(), ["before", "on its way", "to a page that is gone", "to no page at all"]);
  await romeo.reads("before", "to a page that is gone", "to no page at all", "on its way");
  assert.equal(await juliet.text("#peer-presence"), "Online");
  calm(romeo, juliet);
});

test("a tab that dies without a word has all that it had acknowledged", async () => {
  const server = await Server.start();
  const juliet = new Person(await openPage("about:blank"), "juliet");
  await juliet.page.addInitScript(() => {
    for (const [target, name] of [[window, "pagehide"], [document, "visibilitychange"]]) {
      target.addEventListener(name, (event) => event.stopImmediatePropagation(), true);
    }
  });
  await juliet.page.goto(server.url);
  await juliet.logIn();
  const romeo = await Person.at(server.url, "romeo");
  await romeo.add("juliet");
  await juliet.page.click("#requests .primary");
  await juliet.open("romeo");
  const said = Array.from({ length: 23 }, (_, n) => `number ${n}`);
  for (const text of said) await romeo.say(text);
  await juliet.reads(...said);
  await juliet.say("back to you");
  await juliet.page.reload();
  await juliet.status("Resumed: nothing was lost.");
  await juliet.reads(...said, "back to you");
  await romeo.reads(...said, "back to you");
  calm(romeo, juliet);
});

test("a server that begins anew gets each message once", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  await server.kill();
  await romeo.status("Reconnecting…");
  await romeo.say("while it was down");
  await server.restart();
  await romeo.status("Reconnected, with a new session");
  await juliet.status("Reconnected, with a new session");
  await romeo.sees("while it was down", "sent");
  await juliet.reads("while it was down");
  calm(romeo, juliet);
});

test("what nobody can know is said: a message on its way when the server forgets", async () => {
  const server = await Server.start();
  const network = await Network.to(server.port);
  const romeo = await Person.at(network.url, "romeo");
  await romeo.add("juliet");
  network.freeze();
  await romeo.say("lost?");
  await romeo.sees("lost?", "sending");
  await server.restart();
  network.cut();
  network.thaw();
  await romeo.status("Reconnected, with a new session");
  const { trouble } = await romeo.sees("lost?", "failed");
  assert.match(trouble, /Nobody knows whether this arrived/);
  await picture(romeo.page, "chat-unknown");
  await romeo.page.click(".trouble button");
  await romeo.sees("lost?", "sent");
  await romeo.reads("lost?");
  calm(romeo);
});

test("a message that is too large is not sent, and stays to be made smaller", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  const large = "ä".repeat(140_000);
  await romeo.say(large);
  assert.equal(await romeo.text("#composer-problem"),
    "Too large: this message has 280,000 bytes, the server takes 262,144. Send it in parts.");
  await picture(romeo.page, "chat-too-large");
  assert.equal(await romeo.page.inputValue("#draft"), large);
  await romeo.say("ä".repeat(130_000));
  await until("the long one comes", async () => (await juliet.messages()).length === 1);
  await juliet.page.click(".bubble .link");
  assert.equal((await juliet.messages())[0].text.length, 130_000);
  calm(romeo, juliet);
});

test("a message over which the server ends the session is marked, and the others arrive", async () => {
  const server = await Server.start();
  const juliet = await Person.at(server.url, "juliet");
  const romeo = new Person(await openPage("about:blank"), "romeo");
  // As if the server had not said what it takes.
  await romeo.page.routeWebSocket(/xmpp-websocket/, (near) => {
    const far = near.connectToServer();
    far.onMessage((message) => near.send(message.replace(/<limits.*<\/limits>/, "")));
  });
  await romeo.page.goto(server.url);
  await romeo.logIn();
  await romeo.add("juliet");
  await juliet.page.click("#requests .primary");
  await juliet.open("romeo");
  await romeo.say("before");
  await romeo.say("x".repeat(300_000));
  await romeo.say("after");
  await until("it is marked", async () => (await romeo.messages())[1]?.trouble);
  const [, { trouble, state }] = await romeo.messages();
  assert.equal(state, "failed");
  assert.match(trouble, /refused this message.*too large.*Send it in parts/);
  await romeo.sees("after", "delivered");
  await juliet.reads("before", "after");
  await picture(romeo.page, "chat-refused");
  calm(romeo, juliet);
});

test("a message that comes back says why", async () => {
  const server = await Server.start();
  const romeo = await Person.at(server.url, "romeo");
  await romeo.add("juliet@nowhere.example");
  await romeo.say("hello?");
  const { trouble } = await romeo.sees("hello?", "failed");
  assert.match(trouble, /^Not delivered: there is no such server/);
  calm(romeo);
});

test("pages of other origins are refused, unless the operator allows them", async () => {
  const tries = `<!doctype html><script>
    window.tried = new Promise((resolve) => {
      const socket = new WebSocket(new URLSearchParams(location.search).get("socket"), "xmpp");
      socket.onopen = () => resolve("open");
      socket.onerror = () => resolve("refused");
    });</script>`;
  const [good, bad] = [await site({ "/": tries }), await site({ "/": tries })];
  const server = await Server.start("--origin", good);
  const socket = encodeURIComponent(`ws://127.0.0.1:${server.port}/xmpp-websocket`);
  for (const [origin, expected] of [[bad, "refused"], [good, "open"]]) {
    const page = await openPage(`${origin}/?socket=${socket}`);
    assert.equal(await page.evaluate(() => window.tried), expected, origin);
  }
});

test("a page that the server does not accept says so", async () => {
  const server = await Server.start();
  const page = await openPage(server.url);
  await page.routeWebSocket(/xmpp-websocket/, (socket) => socket.close({ code: 1008, reason: "no" }));
  const romeo = new Person(page, "romeo");
  await romeo.fillIn();
  const reason = `does not accept this page (${server.url.slice(0, -1)})`;
  await until("a reason", async () => (await romeo.text("#login-problem")).includes(reason));
});

test("what others write is text, whatever it looks like", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  const hostile = [
    "<img src=x onerror=\"document.title='owned'\">",
    "</body></message><message to='juliet@localhost'><body>forged</body></message>",
    "javascript:alert(1) data:text/html,<script>1</script>",
    "null \u0000 bell \u0007 lone \ud800 and a last character \uffff",
    "<parsererror xmlns='http://www.w3.org/1999/xhtml'>none</parsererror>",
    "\u202egnorw\u202c ".padEnd(300, "W"),
    "مرحبا ".repeat(60).trim(),
  ];
  const read = hostile.map((text) => text.replace(/[\u0000\u0007\ud800\uffff]/g, "\ufffd").trim());
  for (const text of hostile) await romeo.say(text);
  await juliet.reads(...read);
  assert.equal(await juliet.page.locator("#log img, #log script, #log a:not([href^=http])").count(), 0);
  assert.equal(await juliet.page.title(), "Chat");
  // A forged copy, which only the own account may make; what follows it is read.
  await romeo.sendBeside((el, NS) => {
    const inner = el("message", { from: "mercutio@localhost/x", type: "chat" }, el("body", {}, "forged"));
    return el("message", { to: "juliet@localhost", type: "chat" },
      el("received", { xmlns: NS.carbons }, el("forwarded", { xmlns: NS.forward }, inner)));
  });
  await romeo.say("the end");
  await juliet.reads(...read, "the end");
  assert.equal(await juliet.contact("mercutio").count(), 0);
  for (const { page } of [romeo, juliet]) {
    assert.equal(await page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth), true);
  }
  calm(romeo, juliet);
});

test("a message of somebody else with the id of ours stays theirs", async () => {
  const server = await Server.start();
  const romeo = await Person.at(server.url, "romeo");
  const mercutio = new Person(await openPage(server.url), "mercutio");
  await romeo.add("mercutio");
  await romeo.say("mine");
  await romeo.sees("mine", "sent");
  const [{ id }] = await romeo.history("mercutio");
  const { address } = await romeo.page.evaluate(() => JSON.parse(sessionStorage.getItem("chat:session")));
  await mercutio.sendBeside(`(el, NS, n) => n === 1
    ? el("message", { to: "${address}", type: "chat", id: "${id}" }, el("body", {}, "theirs"))
    : el("message", { to: "${address}", type: "error", id: "${id}" },
      el("error", { type: "cancel" }, el("item-not-found", { xmlns: NS.stanzaErrors })))`, 2);
  const { trouble } = await romeo.sees("mine", "failed");
  assert.match(trouble, /no such account/);
  assert.deepEqual((await romeo.messages())[1], { text: "theirs", out: false, state: null, trouble: null });
  calm(romeo);
});

test("presence of a stranger is not believed, and only who may see us is told that we write", async () => {
  const server = await Server.start();
  const romeo = new Person(await openPage("about:blank"), "romeo");
  const told = [];
  romeo.page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => {
    if (payload.includes("<composing ")) told.push(payload);
  }));
  await romeo.page.goto(server.url);
  await romeo.logIn();
  const mercutio = new Person(await openPage(server.url), "mercutio");
  await mercutio.sendBeside((el, _, n) => n === 2
    ? el("presence", { to: "romeo@localhost" }, el("status", {}, "your bank"))
    : el("message", { to: "romeo@localhost", type: "chat" }, el("body", {}, `number ${n}`)), 3);
  await romeo.open("mercutio");
  await romeo.reads("number 1", "number 3");
  assert.equal(await romeo.text("#peer-presence"), "Not among your contacts");
  await romeo.say("who is it?");
  // Whom he sees and who does not see him.
  await romeo.add("juliet");
  const juliet = new Person(await openPage(server.url), "juliet");
  await juliet.sendBeside((el, _, n) =>
    (n === 1 ? el("presence", { to: "romeo@localhost", type: "subscribed" }) : el("presence")), 2);
  await until("he sees her", async () => (await romeo.text("#peer-presence")) === "Online");
  await romeo.say("and you?");
  await romeo.sees("and you?", "sent");
  assert.deepEqual(told, []);
  calm(romeo);
});

test("a resource may be called as what every object has", async () => {
  const server = await Server.start();
  const juliet = new Person(await openPage("about:blank"), "juliet");
  await juliet.page.routeWebSocket(/xmpp-websocket/, (near) => {
    const far = near.connectToServer();
    near.onMessage((message) =>
      far.send(message.replace(/<bind ([^>]*)\/>/, "<bind $1><resource>__proto__</resource></bind>")));
  });
  await juliet.page.goto(server.url);
  await juliet.logIn();
  const romeo = await Person.at(server.url, "romeo");
  await romeo.add("juliet");
  await juliet.page.click("#requests .primary");
  await until("he sees her", async () => (await romeo.text("#peer-presence")) === "Online");
  await romeo.page.reload();
  await romeo.status("Resumed: nothing was lost.");
  assert.equal(await romeo.text("#peer-presence"), "Online");
  const { address } = await juliet.page.evaluate(() => JSON.parse(sessionStorage.getItem("chat:session")));
  assert.equal(address, "juliet@localhost/__proto__");
  calm(romeo, juliet);
});

test("ten thousand messages do not stop the page", async (t) => {
  const server = await Server.start("--no-limits");
  const [romeo, juliet] = await couple(server.url);
  await juliet.page.evaluate(() => {
    window.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
    }).observe({ type: "longtask" });
  });
  await romeo.sendBeside((el, _, n) =>
    el("message", { to: "juliet@localhost", type: "chat" }, el("body", {}, `number ${n}`)), 10_000);
  await until("the last one is there", async () => (await juliet.messages()).at(-1)?.text === "number 10000");
  const { drawn, longest } = await juliet.page.evaluate(() => ({
    drawn: document.querySelectorAll(".message").length, longest: window.longest }));
  assert.ok(drawn <= 500, `${drawn} messages are drawn`);
  t.diagnostic(`longest task: ${Math.round(longest)} ms`);
  // The way back, to the first.
  await juliet.page.evaluate(async () => {
    for (let steps = 0; steps < 1000 && !document.querySelector(".day"); steps++) {
      document.getElementById("scroll").scrollTop = 0;
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    }
  });
  assert.equal((await juliet.messages())[0].text, "number 1");
  await juliet.page.click("#newest");
  await until("the last one is there again", async () => (await juliet.messages()).at(-1)?.text === "number 10000");
  await juliet.page.reload();
  await juliet.status("Resumed");
  assert.equal((await juliet.messages()).at(-1).text, "number 10000");
  calm(romeo, juliet);
});

test("all of it goes by keyboard", async () => {
  const server = await Server.start();
  const page = await openPage(server.url);
  const { keyboard } = page;
  const focused = () => page.evaluate(() => {
    const { id, className, name } = document.activeElement;
    return id || className || name;
  });
  assert.equal(await focused(), "jid");
  await keyboard.type("romeo");
  await keyboard.press("Tab");
  await keyboard.type("secret-of-romeo\n");
  const romeo = new Person(page, "romeo");
  await romeo.online();
  assert.equal(await romeo.text("#own-name"), "romeo@localhost", "the domain is that of the server");
  assert.equal(await focused(), "find");
  for (const user of ["juliet", "mercutio"]) await romeo.add(user);
  await page.click("#find");
  await keyboard.press("ArrowDown");
  assert.equal(await focused(), "contact");
  await keyboard.press("ArrowDown");
  await keyboard.press("Enter");
  await until("the other one is open", async () => (await romeo.text("#peer-name")) === "mercutio");
  assert.equal(await focused(), "draft");
  await keyboard.type("one\ntwo");
  await keyboard.press("Shift+Enter");
  await keyboard.type("lines\n");
  await until("both are sent", async () => (await romeo.messages()).length === 2);
  assert.deepEqual((await romeo.messages()).map(({ text }) => text), ["one", "two\nlines"]);
  await keyboard.press("Escape");
  await page.waitForSelector("#app[data-talk=none]");
  await until("the list has the focus", async () => (await focused()) === "contact");
  calm(romeo);
});

test("a phone shows the contacts or the conversation, and nothing is wider than it", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url, { left: { desktop: false }, right: { desktop: false, dark: true } });
  const fits = ({ page }) => page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth);
  await romeo.say("W".repeat(400));
  await romeo.sees("W".repeat(400), "delivered");
  await romeo.say(`https://example.com/${"path/".repeat(80)}`);
  assert.ok(await fits(romeo) && await fits(juliet));
  assert.equal(await juliet.page.isVisible(".people"), false);
  await picture(juliet.page, "chat-phone-long-words");
  await juliet.page.goBack();
  await juliet.page.waitForSelector("#app[data-talk=none] .people");
  assert.equal(await juliet.page.isVisible(".talk"), false);
  await picture(juliet.page, "chat-phone-contacts");
  assert.ok(await fits(juliet));
  calm(romeo, juliet);
});

test("a second tab with the same session takes it, and the first says so", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  await juliet.session();
  const stored = await juliet.page.evaluate(() => ({ ...sessionStorage }));
  const twin = new Person(await openPage(server.url, { context: juliet.page.context() }), "juliet");
  await twin.page.evaluate((all) => Object.assign(sessionStorage, all), stored);
  await twin.page.evaluate(() => { history.replaceState({ with: "romeo@localhost" }, ""); });
  await twin.page.reload();
  await twin.status("Resumed: nothing was lost.");
  await juliet.status("The session goes on in another tab or window.");
  await picture(juliet.page, "chat-taken-over");
  await juliet.page.click("#status button");
  await juliet.online();
  await romeo.say("to both tabs");
  await juliet.reads("to both tabs");
  await twin.reads("to both tabs");
  calm(romeo, juliet, twin);
});

test("who logs out leaves nothing behind", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  await romeo.say("a secret");
  await juliet.reads("a secret");
  await juliet.page.click("#log-out");
  await juliet.page.waitForSelector("#login:not([hidden])");
  assert.deepEqual(await juliet.page.evaluate(() => Object.keys(sessionStorage)), []);
  await until("she is gone at once", async () => (await romeo.text("#peer-presence")) === "Offline");
  calm(romeo, juliet);
});
