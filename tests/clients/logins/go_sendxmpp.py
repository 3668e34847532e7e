"""Logs in with go-sendxmpp in every way that it knows: SCRAM with its checks against downgrades (XEP-0474), Bind 2,
fast logins by token (XEP-0484) with each kind of channel binding, and without what it may leave out.

Usage: go_sendxmpp.py BINARY STARTTLS-PORT DIRECT-TLS-PORT CERTIFICATE KEY

Where the client should find less on offer than there is, a proxy with the server's own certificate and key stands
between them: the binding to that certificate (ENDP) holds then, the one to the channel (EXPR) does not.
"""

import asyncio
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading

BINARY, STARTTLS, DIRECT, CERTIFICATE, KEY = sys.argv[1:]
STRONGEST = "SCRAM-SHA-512-PLUS"
# For failures only: no run that passes waits for it.
PATIENCE = 30


class Proxy:
    """Takes TLS off and puts it on again; leaves `hidden` out of what the server says."""

    def __init__(self, *hidden):
        self.hidden = [re.compile(rb"<mechanism>%s</mechanism>" % name.encode()) for name in hidden]
        self.inside = ssl.create_default_context(cafile=CERTIFICATE)
        self.outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.outside.load_cert_chain(CERTIFICATE, KEY)
        self.loop, self.began = asyncio.new_event_loop(), threading.Event()
        threading.Thread(target=self.run, daemon=True).start()
        self.began.wait()

    def run(self):
        asyncio.set_event_loop(self.loop)
        listening = asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.outside)
        self.port = self.loop.run_until_complete(listening).sockets[0].getsockname()[1]
        self.began.set()
        self.loop.run_forever()

    async def serve(self, reader, writer):
        server = await asyncio.open_connection("127.0.0.1", int(DIRECT), ssl=self.inside, server_hostname="localhost")
        try:
            await asyncio.gather(self.copy(reader, server[1], []), self.copy(server[0], writer, self.hidden))
        except OSError:
            pass
        server[1].close()
        writer.close()

    @staticmethod
    async def copy(source, sink, hidden):
        # What is looked for may come in two pieces: only whole lists are passed on.
        kept = b""
        while data := await source.read(65536):
            kept += data
            if hidden and b"<stream:features>" in kept and b"</stream:features>" not in kept:
                continue
            for pattern in hidden:
                kept = pattern.sub(b"", kept)
            sink.write(kept)
            await sink.drain()
            kept = b""
        sink.close()


class Device:
    """One installation of the client, with what it remembers."""

    def __init__(self, name):
        self.home = tempfile.TemporaryDirectory()
        self.name = name

    def login(self, *options, port=STARTTLS, password=None, works=True):
        """Sends a message to the own account, and gives back what went over the stream."""
        environment = {**os.environ, "HOME": self.home.name, "SSL_CERT_FILE": CERTIFICATE}
        command = [
            BINARY, "-d", "-u", f"{self.name}@localhost", "-p", password or f"secret-of-{self.name}",
            "-j", f"127.0.0.1:{port}", "--suppress-root-warning", *options, f"{self.name}@localhost",
        ]
        done = subprocess.run(command, input="a word", capture_output=True, text=True, env=environment, timeout=PATIENCE)
        said = done.stdout + done.stderr
        check(said, (done.returncode == 0) == works, f"exit status {done.returncode}")
        return said


def check(said, condition, what):
    if not condition:
        print(said)
        sys.exit(f"FAILED: {what}")


def used(said, mechanism, *words):
    check(said, f"mechanism='{mechanism}'" in said, f"no login by {mechanism}")
    for word in words:
        check(said, word in said, f"no {word}")


def without(said, *words):
    for word in words:
        check(said, word not in said, f"{word} where none should be")


def play(name, scenario):
    scenario()
    print(f"go-sendxmpp: {name}")


def passwords():
    device = Device("user100")
    said = device.login("--fast-off")
    used(said, STRONGEST, "<authenticate xmlns='urn:xmpp:sasl:2'", "<bound xmlns='urn:xmpp:bind:0'")
    without(said, "<token")
    device.login("--fast-off", "-t", port=DIRECT)
    for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512"):
        used(Device("user100").login("--fast-off", "--scram-mech-pinning", mechanism), mechanism)
    said = Device("user100").login("--fast-off", "--allow-plain")
    used(said, STRONGEST)
    device.login("--fast-off", password="wrong", works=False)


def downgrade():
    """The list without the strongest mechanisms: the client notices (XEP-0474)."""
    proxy = Proxy(STRONGEST, "SCRAM-SHA-512", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256")
    Device("user101").login("--fast-off", "-t", port=proxy.port, works=False)
    # It would have got in, had it not looked.
    Device("user101").login("--fast-off", "--ssdp-off", "-t", port=proxy.port)


def tokens():
    for mechanism, hidden in (
        ("HT-SHA-256-EXPR", None),
        ("HT-SHA-256-ENDP", ["HT-SHA-256-EXPR"]),
        ("HT-SHA-256-NONE", ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP"]),
    ):
        device = Device("user102")
        # Through a proxy nothing can be bound to the channel itself.
        options = ["-t"] if hidden else []
        pinned = ["--scram-mech-pinning", "SCRAM-SHA-256"] if hidden else []
        port = Proxy(*hidden).port if hidden else STARTTLS
        used(device.login(*options, *pinned, port=port), "SCRAM-SHA-256" if hidden else STRONGEST, "<token ")
        for _ in range(2):
            said = device.login(*options, port=port)
            used(said, mechanism, "<bound xmlns='urn:xmpp:bind:0'")
            without(said, "<challenge")


def two_devices():
    one, other = Device("user103"), Device("user103")
    one.login()
    other.login()
    used(one.login(), "HT-SHA-256-EXPR")
    used(other.login(), "HT-SHA-256-EXPR")


def invalidated():
    device = Device("user104")
    device.login()
    used(device.login(), "HT-SHA-256-EXPR")
    device.login("--fast-invalidate")
    used(device.login(), "HT-SHA-256-EXPR")
    device.login("--fast-invalidate", "--fast-off")
    used(device.login(), STRONGEST, "<token ")


play("passwords, and the mechanisms one by one", passwords)
play("a shortened list of mechanisms", downgrade)
play("tokens, bound to the channel, to the certificate, to nothing", tokens)
play("two devices", two_devices)
play("tokens that are given up", invalidated)
