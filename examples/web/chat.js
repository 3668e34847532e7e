// The chat page: the way in, and what ties the client, the model and the view together.

import { Client } from "./xmpp/client.js";
import { Chat } from "./chat/model.js";
import { Store, storageOf } from "./chat/store.js";
import { View } from "./chat/view.js";
import { $ } from "./chat/dom.js";
import { whyNoSession, wrongAddress } from "./chat/words.js";
import { LoginError } from "./xmpp/login.js";
import { Stream } from "./xmpp/stream.js";

const url = new URL("/xmpp-websocket", location.href);
url.protocol = url.protocol.replace("http", "ws");

const store = new Store(storageOf("sessionStorage"));
const settings = storageOf("localStorage");
const view = new View({ again: useHere, leave: logOut });
let chat = null;

setTheme(settings.getItem("theme"));
$("theme-toggle").addEventListener("click", () => {
  const themes = ["auto", "light", "dark"];
  setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
});
$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(event.target.elements);
});

const saved = store.load();
if (saved?.session.secret.keys) {
  begin(saved, null);
} else {
  showLogin("", saved?.session.jid ?? "");
}

function setTheme(theme) {
  const known = ["light", "dark"].includes(theme) ? theme : "auto";
  document.documentElement.dataset.theme = known;
  settings.setItem("theme", known);
  const label = { auto: "Colours: as the device", light: "Colours: light", dark: "Colours: dark" }[known];
  $("theme-toggle").title = label;
  $("theme-toggle").setAttribute("aria-label", label);
}

function showLogin(problem, jid) {
  $("app").hidden = true;
  $("login").hidden = false;
  setBusy(false);
  $("login-problem").textContent = problem;
  const { elements } = $("login-form");
  if (jid) elements.jid.value = jid;
  (elements.jid.value ? elements.password : elements.jid).focus();
}

function setBusy(busy) {
  const button = $("login-form").querySelector("button");
  button.disabled = busy;
  button.firstChild.textContent = busy ? "Logging in…" : "Log in";
}

async function logIn({ jid: { value: typed }, password: { value: password } }) {
  setBusy(true);
  $("login-problem").textContent = "";
  const text = typed.trim().toLowerCase();
  const jid = text === "" || text.includes("@") ? text : `${text}@${await domainHere()}`;
  const wrong = wrongAddress(jid);
  if (wrong) return showLogin(wrong, typed);
  const before = store.load();
  const isSame = before?.session.jid === jid;
  if (!isSame) store.clear();
  begin(isSame ? before : null, { jid, secret: { password } });
}

/// The domain that the server serves: that of this page, unless that is an address or another name of it.
async function domainHere() {
  const stream = new Stream(url, location.hostname);
  const timer = setTimeout(() => stream.drop(), 10_000);
  try {
    return (await stream.greet()) ?? location.hostname;
  } catch {
    return location.hostname;
  } finally {
    clearTimeout(timer);
    stream.close();
  }
}

/// Begins a session, or goes on with one that a reload has cut off.
function begin(before, account) {
  let isShown = false;
  const watcher = {
    contact: (contact) => view.contact(contact),
    message: (contact, message) => view.message(contact, message),
    notice: (text) => view.notice(text),
    state() {
      const { name, error } = chat.client.state;
      const isOut = name === "ended" && (!isShown || error instanceof LoginError);
      if (isOut) {
        view.hide();
        showLogin(error ? whyNoSession(error) : "", chat.client.jid);
        chat = null;
      } else if (!isShown && (name === "online" || (before && !account))) {
        isShown = true;
        $("login").hidden = true;
        $("app").hidden = false;
        $("login-form").reset();
        view.show(chat, { restored: Boolean(before) });
        if (account) view.focus();
      } else {
        view.state();
      }
    },
  };
  chat = new Chat(store, watcher, before);
  chat.client = new Client({ url, ...account, saved: before?.session }, chat);
  chat.client.setActive(!document.hidden);
  chat.client.start();
}

/// Another tab has the session: begins one of our own.
function useHere() {
  const { client } = chat;
  chat.client = client.renewed();
  chat.client.setActive(!document.hidden);
  chat.client.start();
}

function logOut() {
  chat.client.stop();
  chat = null;
  store.clear();
  history.replaceState(null, "");
  location.reload();
}

// A page that goes may come back: after a reload, or on a phone days later.
addEventListener("pagehide", () => chat?.save());
addEventListener("pageshow", () => chat?.client.wake());
addEventListener("online", () => chat?.client.wake());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) chat?.save();
  else chat?.client.wake();
  chat?.client.setActive(!document.hidden);
});
