"""A slixmpp client for `stock.py`: tells what happens in lines of JSON, does what it reads in such lines.

Usage: stock_slixmpp.py USER PASSWORD DOMAIN PORT…"""

import asyncio
import json
import logging
import os
import random
import sys

from slixmpp import ClientXMPP

logging.basicConfig(level=logging.CRITICAL)
user, password, domain, *ports = sys.argv[1:]
binds = 0


def tell(*what):
    print(json.dumps(what), flush=True)


class Client(ClientXMPP):
    def __init__(self):
        super().__init__(f"{user}@{domain}/r-1", password)
        self.plugin["feature_mechanisms"].unencrypted_plain = True
        self.enable_starttls = self.enable_direct_tls = False
        self.enable_plaintext = True
        self.register_plugin("xep_0198")
        self.add_filter("in", self.heard)
        self.add_event_handler("session_start", self.session)
        self.add_event_handler("session_resumed", lambda _: tell("resumed"))
        self.add_event_handler("sm_failed", lambda _: tell("failed"))
        self.add_event_handler("stanza_acked", self.acked)
        self.add_event_handler("disconnected", self.down)
        self.reach()

    def reach(self):
        # A resource is used once.
        self.requested_jid.resource = f"r-{binds + 1}"
        self.connect("127.0.0.1", int(random.choice(ports)))

    def down(self, _):
        tell("down")
        asyncio.get_running_loop().call_later(0.1, self.reach)

    def session(self, _):
        global binds
        binds += 1
        tell("session", str(self.boundjid))
        self.send_presence(pstatus="1")

    def heard(self, stanza):
        kind = stanza.xml.get("type", "")
        if stanza.name == "message":
            tell("message", kind, stanza["body"])
        elif stanza.name == "presence":
            if kind == "subscribe":
                self.send_presence(pto=stanza["from"], ptype="subscribed")
            tell("presence", kind, str(stanza["from"]), stanza["status"])
            return None
        return stanza

    def acked(self, stanza):
        if stanza.name == "message":
            tell("acked", stanza["body"])

    async def obey(self, lines):
        async for line in lines:
            self.do(*json.loads(line))
        os._exit(0)

    def do(self, what, *rest):
        if what == "message":
            self.send_message(mto=rest[0], mtype="chat", mbody=rest[1])
        elif what == "say":
            self.send_presence(pstatus=str(rest[0]))
        elif what == "subscribe":
            self.send_presence(pto=rest[0], ptype="subscribe")


async def main():
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await Client().obey(lines)


asyncio.run(main())
