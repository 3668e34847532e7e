"""What a login costs until the client can send: in SASL1 with its restarts, in SASL2 with Bind 2, by token.

Usage: measure.py STARTTLS-PORT DIRECT-TLS-PORT CERTIFICATE SERVER-PID [LOGINS]

Each way logs in over a link that delays by 50 ms in each direction (100 ms for there and back), then LOGINS (1000) times
without a delay, in turns, for the processor time of the server. Prints a table (docs/performance.md).
"""

import base64
import hashlib
import hmac
import os
import queue
import re
import socket
import ssl
import statistics
import sys
import threading
import time
import uuid

STARTTLS, DIRECT = int(sys.argv[1]), int(sys.argv[2])
CERTIFICATE, PID = sys.argv[3], int(sys.argv[4])
LOGINS = int(sys.argv[5]) if len(sys.argv) > 5 else 1000
DELAY = 0.05
NAME, PASSWORD = "user120", "secret-of-user120"
TICKS = os.sysconf("SC_CLK_TCK")

HEADER = (
    f"<stream:stream to='localhost' from='{NAME}@localhost' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)


class Link:
    """A listener that passes bytes on, later."""

    def __init__(self, port):
        self.port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            # The handshake of TCP takes its time as well.
            time.sleep(2 * DELAY)
            server = socket.create_connection(("127.0.0.1", self.port))
            for ends in ((client, server), (server, client)):
                for end in ends:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.copy, args=ends, daemon=True).start()

    @staticmethod
    def copy(source, sink):
        waiting = queue.SimpleQueue()

        def deliver():
            while item := waiting.get():
                due, data = item
                time.sleep(max(0, due - time.monotonic()))
                try:
                    sink.sendall(data)
                except OSError:
                    return

        threading.Thread(target=deliver, daemon=True).start()
        try:
            while data := source.recv(65536):
                waiting.put((time.monotonic() + DELAY, data))
        except OSError:
            pass
        waiting.put(None)


class Client:
    def __init__(self, port):
        self.raw = socket.create_connection(("127.0.0.1", port))
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = self.raw
        # Of TCP; those of TLS and of the stream follow.
        self.trips, self.sent, self.received, self.text = 1, 0, 0, ""

    def tls(self):
        context = ssl.create_default_context(cafile=CERTIFICATE)
        self.socket = context.wrap_socket(self.raw, server_hostname="localhost")
        self.trips += 1

    def send(self, text):
        self.socket.sendall(text.encode())
        self.sent += len(text)

    def until(self, *ends):
        """Takes what comes up to the last of these."""
        self.trips += 1
        while not all(end in self.text for end in ends):
            data = self.socket.recv(65536)
            if not data:
                sys.exit(f"closed by the server: {self.text}")
            self.received += len(data)
            self.text += data.decode()
        text, self.text = self.text, ""
        return text

    def ask(self, text, *ends):
        self.send(text)
        return self.until(*ends)


def scram(first_of_server, nonce):
    """The client's proof (RFC 5802)."""
    fields = dict(field.split("=", 1) for field in first_of_server.split(","))
    salt, count = base64.b64decode(fields["s"]), int(fields["i"])
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, count)
    key = hmac.digest(salted, b"Client Key", "sha256")
    last = f"c=biws,r={fields['r']}"
    message = f"n={NAME},r={nonce},{first_of_server},{last}"
    signature = hmac.digest(hashlib.sha256(key).digest(), message.encode(), "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature))
    return encode(f"{last},p={encode(proof)}")


def encode(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def between(text, before, after):
    return re.search(f"{before}(.*?){after}", text).group(1)


def sasl1(port, starttls):
    client = Client(port)
    if starttls:
        client.ask(HEADER, "</stream:features>")
        client.ask("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed")
    client.tls()
    client.ask(HEADER, "</stream:features>")
    nonce = uuid.uuid4().hex
    first = encode(f"n,,n={NAME},r={nonce}")
    auth = f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>"
    challenge = base64.b64decode(between(client.ask(auth, "</challenge>"), "'>", "</challenge>")).decode()
    proof = scram(challenge, nonce)
    client.ask(f"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{proof}</response>", "</success>")
    client.ask(HEADER, "</stream:features>")
    client.ask("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
    client.ask("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "<enabled")
    client.ask("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>", "id='c'")
    return client


BIND = (
    "<bind xmlns='urn:xmpp:bind:0'><tag>measure</tag><enable xmlns='urn:xmpp:carbons:2'/>"
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>"
)
AGENT = "<user-agent id='8e32c1f0-79c5-4b2d-9e53-5e0d1a3a7f11'><software>measure</software></user-agent>"


def sasl2(port, more=""):
    client = Client(port)
    client.tls()
    client.ask(HEADER, "</stream:features>")
    nonce = uuid.uuid4().hex
    first = encode(f"n,,n={NAME},r={nonce}")
    challenge = client.ask(
        f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256'><initial-response>{first}</initial-response>"
        f"{AGENT}{BIND}{more}</authenticate>",
        "</challenge>",
    )
    proof = scram(base64.b64decode(between(challenge, "'>", "</challenge>")).decode(), nonce)
    success = client.ask(f"<response xmlns='urn:xmpp:sasl:2'>{proof}</response>", "</success>", "</stream:features>")
    if "<bound" not in success or "<enabled" not in success:
        sys.exit(f"not bound: {success}")
    client.success = success
    return client


def fast(port, token):
    """The header and the authentication in one flight (XEP-0509), as a client does that knows the server."""
    client = Client(port)
    client.tls()
    proof = hmac.digest(token.encode(), b"Initiator", "sha256")
    initial = encode(NAME.encode() + b"\0" + proof)
    success = client.ask(
        f"{HEADER}<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'>"
        f"<initial-response>{initial}</initial-response>{AGENT}{BIND}<fast xmlns='urn:xmpp:fast:0'/></authenticate>",
        "</success>",
    )
    if "<bound" not in success or "<enabled" not in success:
        sys.exit(f"not bound: {success}")
    return client


def cpu():
    with open(f"/proc/{PID}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main():
    request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
    token = between(sasl2(DIRECT, request).success, "token='", "'")
    ways = {
        "STARTTLS, SASL1, bind, enable, carbons": lambda links: sasl1(links[0], True),
        "direct TLS, SASL1, bind, enable, carbons": lambda links: sasl1(links[1], False),
        "direct TLS, SASL2 (SCRAM), Bind 2": lambda links: sasl2(links[1]),
        "direct TLS, SASL2 (token), Bind 2": lambda links: fast(links[1], token),
    }
    links = [Link(port).listener.getsockname()[1] for port in (STARTTLS, DIRECT)]
    rows = {}
    for name, way in ways.items():
        took = []
        for _ in range(5):
            begin = time.monotonic()
            client = way(links)
            took.append(time.monotonic() - begin)
            client.raw.close()
        rows[name] = [client.trips, client.sent, client.received, statistics.median(took)]
    spent = {name: [] for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            before = cpu()
            for _ in range(LOGINS // 5):
                client = way((STARTTLS, DIRECT))
                client.send("</stream:stream>")
                client.raw.close()
            spent[name].append((cpu() - before) / (LOGINS // 5))
    print("| | round trips, TCP and TLS with them | bytes sent, received in the stream | until it can send, 100 ms there and back | server, CPU |")
    print("|---|---|---|---|---|")
    for name, (trips, sent, received, took) in rows.items():
        print(f"| {name} | {trips} | {sent}, {received} | {took * 1000:.0f} ms | {statistics.median(spent[name]) * 1000:.2f} ms |")


if __name__ == "__main__":
    main()
