"""Logs in with nbxmpp (SASL2), sends itself a message, loses its connection and resumes.

Usage: nbxmpp_login.py HOST:PORT CERTIFICATE JID PASSWORD. Prints what was negotiated; exits with 1 where
something is missing.
"""

import logging
import sys

import gi

gi.require_version("Gio", "2.0")
gi.require_version("Soup", "3.0")
from gi.repository import Gio, GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType, Mode
from nbxmpp.protocol import JID, Message, Presence
from nbxmpp.structs import StanzaHandler

# For failures only: no run that passes waits for it.
PATIENCE = 30


class Lines(logging.Handler):
    """What went over the stream, as far as the client says it."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.text = []

    def emit(self, record):
        self.text.append(record.getMessage())


def main(address, certificate, jid, password):
    lines = Lines()
    logging.getLogger("nbxmpp").addHandler(lines)
    logging.getLogger("nbxmpp").setLevel(logging.DEBUG)
    loop = GLib.MainLoop()
    jid = JID.from_string(jid)
    client = Client(log_context="logins")
    client.set_domain(jid.domain)
    client.set_username(jid.localpart)
    client.set_password(password)
    client.set_resource("nbxmpp")
    client.set_mode(Mode.CLIENT)
    client.set_protocols([ConnectionProtocol.TCP])
    client.set_connection_types([ConnectionType.START_TLS])
    client.set_custom_host(address, ConnectionProtocol.TCP, ConnectionType.START_TLS)
    client.set_accepted_certificates([Gio.TlsCertificate.new_from_file(certificate)])
    seen, connected = [], []

    def finish(why=None):
        failures.extend([why] if why else [])
        loop.quit()
        return False

    def on_message(_client, stanza, _properties):
        seen.append(stanza.getBody())
        if seen == ["one"]:
            # The transport is gone without a word.
            client.disconnect(immediate=True)
        elif seen == ["one", "two"]:
            finish()

    def on_connected(*_):
        connected.append("connected")
        client.send(Presence())
        client.send(Message(to=client.get_bound_jid(), body="one", typ="chat"))

    def on_resumed(*_):
        connected.append("resumed")
        client.send(Message(to=client.get_bound_jid(), body="two", typ="chat"))

    failures = []
    client.register_handler(StanzaHandler(name="message", callback=on_message))
    client.subscribe("connected", on_connected)
    client.subscribe("resume-successful", on_resumed)
    client.subscribe("resume-failed", lambda *_: finish("the resumption failed"))
    client.subscribe("connection-failed", lambda *_: finish("the connection failed"))

    def on_disconnected(*_):
        if connected != ["connected"]:
            return finish(f"disconnected: {client.get_error()}")
        GLib.idle_add(client.connect)

    client.subscribe("disconnected", on_disconnected)
    GLib.timeout_add_seconds(PATIENCE, finish, "waited in vain")
    client.connect()
    loop.run()
    if not any("<authenticate" in line and "urn:xmpp:sasl:2" in line for line in lines.text):
        failures.append("no SASL2")
    print("nbxmpp:", ", ".join(connected), "by SASL2;", " ".join(seen))
    if failures or connected != ["connected", "resumed"] or seen != ["one", "two"]:
        print("FAILED:", failures, *lines.text[-30:], sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
