// The live view of examples/web, and what the chat page makes of what an operator does.

import assert from "node:assert/strict";
import { after, afterEach, test } from "node:test";

import { couple } from "./person.js";
import { endAll, endBrowser, openPage, picture, Server, until } from "./world.js";

afterEach(endAll);
after(endBrowser);

test("the live view shows sessions and ends one, whose client says so and may come back", async () => {
  const server = await Server.start();
  const [romeo, juliet] = await couple(server.url);
  const live = await openPage(`${server.url}live`);
  await live.waitForSelector("#rows tr:has-text('romeo@localhost')");
  await picture(live, "live-desktop");
  await live.click("#rows tr:has-text('juliet@localhost') button");
  await live.click("#confirm-yes");
  await juliet.status("The server has ended the session. The server says: “The operator has ended this session.”");
  await picture(juliet.page, "chat-kicked");
  await until("it is among the last ends", async () => (await live.textContent("#ends")).includes("juliet@localhost"));
  await until("it is out of the table", async () => !(await live.textContent("#rows")).includes("juliet@localhost"));
  await until("romeo sees her go", async () => (await romeo.text("#peer-presence")) === "Offline");
  await juliet.page.click("#status button");
  await until("she is back", async () => (await romeo.text("#peer-presence")) === "Online");
  await romeo.say("Welcome back");
  await juliet.reads("Welcome back");
  for (const page of [live, romeo.page, juliet.page]) assert.deepEqual(page.troubles, []);
});

test("an end that fails is told as such, and by keyboard one goes on at the next session", async () => {
  const server = await Server.start();
  await couple(server.url);
  const live = await openPage(`${server.url}live`);
  const end = live.locator("#rows tr:has-text('juliet@localhost') button");
  const answers = [
    ["The session was not ended: the server answers 500.", (route) => route.fulfill({ status: 500 })],
    ["The session was not ended: there is no connection.", (route) => route.abort()],
  ];
  for (const [words, answer] of answers) {
    await live.route("**/live/end", answer);
    await end.click();
    await live.click("#confirm-yes");
    await live.waitForSelector(`#toast:has-text("${words}")`);
    await live.unroute("**/live/end");
  }
  await end.focus();
  for (const key of ["Enter", "Tab", "Enter"]) await live.keyboard.press(key);
  await live.waitForSelector("#toast:has-text('Ended: juliet@localhost')");
  await until("the focus is at the other one", () => live.evaluate(() =>
    document.activeElement.ariaLabel?.startsWith("End the session romeo@localhost")));
  assert.deepEqual(live.troubles, []);
});

test("a tab that is closed hibernates, which the live view shows", async () => {
  const server = await Server.start();
  const [, juliet] = await couple(server.url);
  const live = await openPage(`${server.url}live`, { desktop: false, dark: true });
  await live.waitForSelector("#rows tr:has-text('juliet@localhost')");
  await juliet.page.close();
  await live.waitForSelector("#rows tr:has-text('juliet@localhost'):has-text('ibernating')");
  await picture(live, "live-phone");
  assert.deepEqual(live.troubles, []);
});

test("a server that is drained tells its clients, and they wait for another", async () => {
  const server = await Server.start();
  const [romeo] = await couple(server.url);
  const live = await openPage(`${server.url}live`);
  await live.waitForSelector("#rows tr:has-text('romeo@localhost')");
  await live.click("#drain");
  await live.click("#confirm-yes");
  await live.waitForSelector("#banner:has-text('Drained')");
  await romeo.status("Reconnecting…");
  await romeo.say("after the restart");
  await server.restart();
  await romeo.page.click("#status button");
  await romeo.status("Reconnected, with a new session");
  await romeo.sees("after the restart", "sent");
});
