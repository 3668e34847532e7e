// An xmpp.js client for stock.py: tells what happens in lines of JSON, does what it reads in such lines.
// Usage: node stock_xmppjs.js USER PASSWORD DOMAIN PORT…
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const near = createRequire(new URL("../clients/xmppjs/scenarios.js", import.meta.url));
const { client, xml } = await import(pathToFileURL(near.resolve("@xmpp/client")));
const [username, password, domain, ...ports] = process.argv.slice(2);
const tell = (...what) => console.log(JSON.stringify(what));
const service = () => `xmpp://127.0.0.1:${ports[Math.floor(Math.random() * ports.length)]}`;
const send = (...element) => xmpp.send(xml(...element)).catch(() => {});
const bodies = (stanza) => stanza.is("message") && stanza.getChildText("body");

const xmpp = client({ service: service(), domain, username, password });
xmpp.reconnect.delay = 100;
xmpp.on("error", () => {});
xmpp.on("disconnect", () => {
  xmpp.options.service = service();
  tell("down");
});
xmpp.on("online", (jid) => {
  tell("session", jid.toString());
  send("presence", {}, xml("status", {}, "1"));
});
xmpp.on("element", (element) => element.is("failed", "urn:xmpp:sm:3") && tell("failed"));
// Not by its element: with SASL2 that is within another one.
xmpp.streamManagement.on("resumed", () => tell("resumed"));
xmpp.setMaxListeners(0);
xmpp.on("stanza", (stanza) => {
  const { type = "", from } = stanza.attrs;
  if (stanza.is("message")) tell("message", type, bodies(stanza));
  else if (stanza.is("presence")) {
    if (type === "subscribe") send("presence", { to: from, type: "subscribed" });
    tell("presence", type, from, stanza.getChildText("status") ?? "");
  }
});
xmpp.streamManagement.on("ack", (stanza) => bodies(stanza) && tell("acked", bodies(stanza)));
const acts = {
  message: (to, body) => send("message", { to, type: "chat" }, xml("body", {}, body)),
  say: (status) => send("presence", {}, xml("status", {}, String(status))),
  subscribe: (to) => send("presence", { to, type: "subscribe" }),
};
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [what, ...rest] = JSON.parse(line);
    acts[what](...rest);
  })
  .on("close", () => process.exit(0));
// The library writes to a socket that is gone, and awaits that nowhere: a browser goes on.
process.on("unhandledRejection", (error) => console.error(error));
xmpp.start().catch(() => {});
