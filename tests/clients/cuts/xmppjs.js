// The receiver for run.py: logs in through the proxy and prints a line of JSON for each thing that happens.
// Usage: node xmppjs.js PORT USER PASSWORD
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const near = createRequire(new URL("../xmppjs/scenarios.js", import.meta.url));
const { client, xml } = await import(pathToFileURL(near.resolve("@xmpp/client")));
const [port, username, password] = process.argv.slice(2);
const tell = (...what) => console.log(JSON.stringify(what));

const xmpp = client({ service: `xmpp://127.0.0.1:${port}`, domain: "localhost", resource: "cut", username, password });
xmpp.reconnect.delay = 10;
xmpp.on("error", (error) => tell("error", String(error)));
xmpp.on("online", () => {
  tell("session");
  xmpp.send(xml("presence")).catch(() => {});
});
// What came over the wire: the library's own event comes again for each resumption that was cut before.
xmpp.on("element", (element) => {
  for (const name of ["resumed", "failed"]) if (element.is(name, "urn:xmpp:sm:3")) tell(name);
});
xmpp.setMaxListeners(0); // it leaves a listener behind for each of those, and would warn
xmpp.on("stanza", (stanza) => {
  const body = stanza.is("message") && stanza.getChildText("body");
  if (body) tell("message", body);
});
// A cut right behind <resumed/> finds the library writing to a socket that is gone, and nobody awaits that: a browser goes on.
process.on("unhandledRejection", (error) => tell("error", String(error)));
xmpp.start().catch(() => {});
process.stdin.on("end", () => process.exit(0)).resume();
