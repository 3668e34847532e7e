// The live view: asks the server once a second what there is, and shows it.

import { storageOf } from "./chat/store.js";
import { Chart } from "./live/charts.js";
import { bytes, count, element, rate, say, time } from "./live/format.js";
import { Table } from "./live/table.js";

const $ = (id) => document.getElementById(id);
const EVERY = 1000;
const STREAMS = ["unauthenticated", "authenticated", "closing"];

/** What is asked for: one state or all, a text, an order. */
const asked = { state: null, text: "" };
let last = null;

// Tiles: how many are in which state.

const tiles = new Map(
  ["available", "bound", "hibernating", "authenticated", "unauthenticated", "closing"].map((state) => {
    const node = $("tiles").appendChild(element("button", "tile"));
    node.type = "button";
    node.dataset.state = state;
    node.setAttribute("aria-pressed", "false");
    node.append(element("span", "label", state[0].toUpperCase() + state.slice(1)));
    const value = node.appendChild(element("span", "value", "–"));
    const share = node.appendChild(element("span", "track")).appendChild(element("span", "share"));
    node.addEventListener("click", () => only(asked.state === state ? null : state));
    return [state, { node, value, share }];
  }),
);

function only(state) {
  asked.state = state;
  for (const [name, { node }] of tiles) node.setAttribute("aria-pressed", String(name === state));
  now();
}

// Charts.

const charts = {
  stanzas: new Chart("Stanzas a second", [["one", "in"], ["two", "out"]], rate, { least: 5 }),
  bytes: new Chart("Bytes a second", [["one", "in"], ["two", "out"]], bytes, { least: 1024, thousand: 1024 }),
  logins: new Chart("Logins a second", [["two", "in"], ["bad", "failed"]], rate, { least: 1 }),
  waiting: new Chart("Unacknowledged", [["one", "bytes"]], bytes, { least: 1024, thousand: 1024 }),
};
for (const { node } of Object.values(charts)) $("charts").append(node);

function plot(data) {
  const seconds = last ? (data.at - last.at) / 1000 : 0;
  // After a pause nobody knows how it went.
  const known = seconds > 0 && seconds < 4;
  const each = (name) => (known ? Math.max(0, data.counters[name] - last.counters[name]) / seconds : null);
  charts.stanzas.push([each("received"), each("delivered")]);
  charts.bytes.push([each("bytes_received"), each("bytes_delivered")]);
  charts.logins.push([each("logins"), each("login_failures")]);
  charts.waiting.push([data.counters.retained_bytes]);
}

// The table.

const table = new Table($("rows"), async (session) => {
  const sure = await confirm(
    `End the session ${session.name}?`,
    "Its client is told that the operator has ended it, and cannot resume it. It may log in again.",
    "End the session",
  );
  if (!sure) return;
  const answer = await act("/live/end", { jid: session.jid, number: session.number }, "The session was not ended");
  if (answer) toast(answer.ended ? `Ended: ${session.name}` : "That session is over already.");
});

function sortBy(key, down) {
  table.sort = { key, down };
  for (const head of document.querySelectorAll("th[data-key]")) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const value = `${key} ${down ? "desc" : "asc"}`;
  $("order").value = value;
  document.activeElement?.closest("#rows button")?.blur();
  now();
}

for (const head of document.querySelectorAll("th[data-key]")) {
  const { key } = head.dataset;
  const textual = key === "name" || key === "state";
  head.querySelector("button").addEventListener("click", () => {
    sortBy(key, table.sort.key === key ? !table.sort.down : !textual);
  });
}
$("order").addEventListener("change", ({ target }) => {
  const [key, way] = target.value.split(" ");
  sortBy(key, way === "desc");
});

const search = $("search");
search.addEventListener("input", () => {
  asked.text = search.value.trim();
  now();
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest?.("input, select, dialog")) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && event.target === search) {
    search.value = "";
    search.dispatchEvent(new Event("input"));
    search.blur();
  }
});

$("more").addEventListener("click", () => $("sessions").classList.add("all"));

/** The order of the server that brings the first ones of ours, where it has one. */
function order() {
  const { key, down } = table.sort;
  if (key === "since") return down ? "oldest" : "newest";
  return key === "waiting" || key === "unacknowledged" ? key : "oldest";
}

function list(data) {
  const text = asked.text.toLowerCase();
  const ofStreams = STREAMS.includes(asked.state);
  const sessions = ofStreams ? [] : data.sessions;
  const streams = data.streams.filter(
    (one) => (asked.state === null || one.state === asked.state) && one.peer.toLowerCase().includes(text),
  );
  table.show(sessions, streams, data.at);
  const all = (ofStreams ? 0 : data.counts.matching) + streams.length;
  const shown = sessions.length + streams.length;
  const which = asked.state === null ? "" : ` ${asked.state}`;
  say($("shown"), shown < all ? `${count(shown)} of ${count(all)}${which}` : `${count(all)}${which}`);
  // On a phone the first ten are enough at first.
  $("more").hidden = shown <= 10;
  say($("more"), `Show all ${count(shown)}`);
  const empty = $("empty");
  empty.hidden = shown > 0;
  $("table").hidden = shown === 0;
  const why = JSON.stringify([asked, data.drain !== null]);
  if (shown > 0 || empty.dataset.for === why) return;
  empty.dataset.for = why;
  if (text || asked.state) {
    empty.replaceChildren(text ? `Nobody here is called “${asked.text}”.` : `Nobody is ${asked.state} now.`);
  } else if (data.drain) {
    empty.replaceChildren("Nobody is here any more.");
  } else {
    const link = element("a", "", "chat page");
    link.href = "/";
    empty.replaceChildren("Nobody is here yet. Log in at the ", link, " in another window.");
  }
}

// What ended, and what was counted.

const BAD = ["overflow", "evicted", "kicked", "slow-reader", "stream-error", "account-removed"];
const FINE = ["closed", "replaced", "shutdown"];

function ends({ ends: newest, at, counters }) {
  const list = $("ends");
  $("no-ends").hidden = newest.length > 0;
  const total = Object.values(counters.ends).reduce((sum, n) => sum + n, 0);
  say($("ends-count"), total ? count(total) : "");
  const known = new Map([...list.children].map((item) => [item.dataset.number, item]));
  const items = newest.map((end) => {
    const item = known.get(String(end.number)) ?? ended(end);
    say(item.querySelector("time"), `${time(Math.max(0, at - end.at))} ago`);
    return item;
  });
  if (items.some((item, n) => list.children[n] !== item) || list.children.length !== items.length) {
    list.replaceChildren(...items);
  }
}

function ended(end) {
  const item = element("li");
  item.dataset.number = end.number;
  const [, account, resource] = end.jid.match(/^([^/]*)(\/.*)?$/s);
  const [first, second] = [element("div"), element("div")];
  const who = first.appendChild(element("span", "who", account));
  who.title = end.jid;
  who.append(element("span", "", resource ?? ""));
  first.appendChild(element("time")).dateTime = new Date(end.at).toISOString();
  const why = second.appendChild(element("span", "why", end.reason));
  why.dataset.tone = BAD.includes(end.reason) ? "bad" : FINE.includes(end.reason) ? "fine" : "odd";
  const left = end.left > 0 ? ` · ${count(end.left)} left` : "";
  second.append(element("span", "what", `${count(end.received)} in · ${count(end.sent)} out${left}`));
  item.append(first, second);
  return item;
}

const COUNTERS = [
  ["Streams", (c) => c.accepted],
  ["Logins", (c) => c.logins],
  ["Failed", (c) => c.login_failures, true],
  ["Binds", (c) => c.binds],
  ["Resumed", (c) => c.resumptions],
  ["Messages", (c) => c.messages],
  ["Presence", (c) => c.presences],
  ["Requests", (c) => c.iqs],
  ["Stored", (c) => c.offline_stored],
  ["Retrieved", (c) => c.offline_retrieved],
];
const numbers = COUNTERS.map(([name]) => counter(name));

function counter(name, className = "") {
  const row = $("counters").appendChild(element("div", className));
  row.append(element("dt", "", name));
  return { row, value: row.appendChild(element("dd", "", "–")) };
}

const named = new Map();

function counted({ counters }) {
  COUNTERS.forEach(([, of, isBad], n) => {
    say(numbers[n].value, count(of(counters)));
    numbers[n].row.classList.toggle("bad", Boolean(isBad) && of(counters) > 0);
  });
  for (const [group, what] of [["faults", "Fault"], ["limits", "Limit"]]) {
    for (const [name, n] of Object.entries(counters[group])) {
      const label = `${what}: ${name}`;
      if (!named.has(label)) named.set(label, counter(label, "long"));
      say(named.get(label).value, count(n));
    }
  }
}

// The server as a whole.

function whole(data) {
  say($("uptime"), time(data.uptime));
  const { counts, drain } = data;
  const sum = [...tiles.keys()].reduce((all, state) => all + counts[state], 0);
  for (const [state, { value, share }] of tiles) {
    say(value, count(counts[state]));
    share.style.scale = `${sum ? counts[state] / sum : 0} 1`;
  }
  $("drain").disabled = drain !== null;
  $("banner").hidden = drain === null;
  if (drain?.done) {
    status("drain", "Drained");
    say($("banner-text"), "Drained: no session is left, and nothing is accepted any more. The process can be stopped.");
    $("banner-progress").value = 1;
  } else if (drain) {
    status("drain", "Draining");
    const all = drain.ended + drain.left;
    say($("banner-text"), `Draining: ${count(drain.ended)} of ${count(all)} sessions have ended. New ones are refused.`);
    $("banner-progress").value = all ? drain.ended / all : 1;
  } else {
    status("good", "Serving");
  }
}

function status(state, text) {
  $("status").dataset.state = state;
  say($("status-text"), text);
  const isLost = state === "lost";
  document.documentElement.classList.toggle("stale", isLost);
  for (const button of $("rows").querySelectorAll("button")) button.disabled = isLost;
  if (isLost) $("drain").disabled = true;
}

$("drain").addEventListener("click", async () => {
  const sessions = last ? last.counts.available + last.counts.bound + last.counts.hibernating : 0;
  const sure = await confirm(
    "Drain the server?",
    `It accepts nobody from now on, and ends ${count(sessions)} session${sessions === 1 ? "" : "s"}, some at a time. ` +
      "Every client is told that the system shuts down. This cannot be taken back.",
    "Drain the server",
  );
  if (sure) {
    await act("/live/drain", {}, "The server does not drain");
    now();
  }
});

function confirm(title, text, yes) {
  const dialog = $("confirm");
  say($("confirm-title"), title);
  say($("confirm-text"), text);
  say($("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let hiding;
function toast(text) {
  say($("toast"), text);
  $("toast").classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => $("toast").classList.remove("shown"), 4000);
}

// Colours: as the device has them, or one of both. The chat page keeps to the same choice.

const THEMES = ["auto", "light", "dark"];
const settings = storageOf("localStorage");
function paint(theme) {
  document.documentElement.dataset.theme = theme;
  const text = theme === "auto" ? "Colours: as the device" : `Colours: ${theme}`;
  $("theme").setAttribute("aria-label", text);
  $("theme").title = text;
}
let theme = THEMES.find((name) => name === settings.getItem("theme")) ?? "auto";
paint(theme);
$("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  settings.setItem("theme", theme);
  paint(theme);
});

// Once a second, while somebody looks.

/** Returns the answer, or `null` where there is none: then `failure` and why is told. */
async function act(path, what, failure) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(what),
    });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    return await answer.json();
  } catch (error) {
    toast(`${failure}: ${error instanceof TypeError ? "there is no connection" : error.message}.`);
    return null;
  } finally {
    now();
  }
}

let timer;
let looking = 0;

async function look() {
  clearTimeout(timer);
  const turn = ++looking;
  const query = new URLSearchParams({ order: order(), containing: asked.text });
  if (asked.state && !STREAMS.includes(asked.state)) query.set("state", asked.state);
  try {
    const answer = await fetch(`/live/data?${query}`, { signal: AbortSignal.timeout(10_000) });
    if (answer.status === 403) return location.reload();
    if (!answer.ok) throw new Error();
    const data = await answer.json();
    // A later look has overtaken it.
    if (turn !== looking) return;
    whole(data);
    if (!last || data.at - last.at > EVERY / 2) {
      plot(data);
      last = data;
    }
    list(data);
    ends(data);
    counted(data);
  } catch {
    if (turn !== looking) return;
    status("lost", "No connection");
  }
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

/** At once; several calls are one. */
function now() {
  clearTimeout(timer);
  timer = setTimeout(look, 30);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : now()));
sortBy("since", true);
