"""A slixmpp client that records what it receives, so that a scenario can wait for stanzas in any order
and count those it does not expect."""
import asyncio
import itertools
import logging

from slixmpp import ClientXMPP

# A time limit is for failures only: no scenario that passes waits for one.
PATIENCE = 60
logging.basicConfig(level=logging.CRITICAL)


class Refused(Exception):
    """The server did not take the credentials."""


class Server:
    """Where the server under test listens and what it knows."""

    def __init__(self, options):
        self.host = "127.0.0.1"
        self.port = options.port
        self.tls_port = options.tls_port
        self.certificate = options.certificate
        self.domain = options.domain
        self.mechanisms = options.mechanisms.split(",")
        self.open = []

    def password(self, user):
        return f"secret-of-{user}"

    async def login(self, user, resource, mechanism=None, password=None, available=True, direct_tls=False):
        jid = f"{user}@{self.domain}" + (f"/{resource}" if resource else "")
        client = Client(jid, password or self.password(user), sasl_mech=mechanism)
        client.ca_certs = self.certificate
        client.enable_direct_tls, client.enable_starttls = direct_tls, not direct_tls
        self.open.append(client)
        client.connect(self.host, self.tls_port if direct_tls else self.port)
        try:
            await asyncio.wait_for(client.started, PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"{user}/{resource} did not get a session") from None
        assert client.over_tls, f"{user}/{resource} is not under TLS"
        if available:
            client.send_raw("<presence/>")
            await client.expect(lambda s: s.name == "presence" and s["from"] == client.boundjid, "own presence")
        return client

    async def close_all(self):
        clients, self.open = self.open, []
        await asyncio.gather(*(client.leave() for client in clients))


class Client(ClientXMPP):
    """One connection; `expect` takes what came in out of the record, `received` looks at what is left."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.received = []
        self.arrival = asyncio.Event()
        self.started = asyncio.get_running_loop().create_future()
        self.stream_error_condition = None
        self.gone = asyncio.Event()
        self.over_tls = False
        self.ids = itertools.count(1)
        self.add_filter("in", self._record)
        self.add_event_handler("session_start", self._session_start)
        self.add_event_handler("failed_auth", lambda _: self._fail(Refused()))
        self.add_event_handler("stream_error", self._stream_error)
        self.add_event_handler("disconnected", self._disconnected)

    def _record(self, stanza):
        self.received.append(stanza)
        self.arrival.set()
        # The library would answer subscriptions by itself: presence is for the scenarios alone.
        return None if stanza.name == "presence" else stanza

    def _session_start(self, _):
        self.over_tls = self.transport.get_extra_info("ssl_object") is not None
        if not self.started.done():
            self.started.set_result(None)

    def _fail(self, error):
        if not self.started.done():
            self.started.set_exception(error)

    def _stream_error(self, error):
        self.stream_error_condition = error["condition"]
        self.arrival.set()

    def _disconnected(self, _):
        self._fail(ConnectionError("disconnected before the session started"))
        self.gone.set()
        self.arrival.set()

    async def expect(self, matches, what):
        """Removes the first recorded stanza that matches from the record and returns it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            for at, stanza in enumerate(self.received):
                if matches(stanza):
                    return self.received.pop(at)
            self.arrival.clear()
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self.arrival.wait(), left)
            except asyncio.TimeoutError:
                seen = "\n    ".join(str(stanza) for stanza in self.received)
                raise AssertionError(f"{self.boundjid} never got {what}; it has\n    {seen}") from None

    async def message(self, text):
        return await self.expect(lambda s: s.name == "message" and s["body"] == text, f"the message {text!r}")

    async def presence(self, sender, kind):
        """Waits for presence of `sender`, whose `type` is `kind` ("" for available)."""

        def matches(stanza):
            return stanza.name == "presence" and stanza["from"] == sender and stanza.xml.get("type", "") == kind

        return await self.expect(matches, f"presence {kind or 'available'!r} of {sender}")

    async def request(self, kind, payload, to=None):
        """Sends an iq and returns its answer, result or error."""
        name = f"q{next(self.ids)}"
        to = f" to='{to}'" if to else ""
        self.send_raw(f"<iq type='{kind}' id='{name}'{to}>{payload}</iq>")
        return await self.expect(
            lambda s: s.name == "iq" and s["id"] == name and s.xml.get("type") in ("result", "error"), f"answer {name}"
        )

    async def settle(self, *others):
        """Returns when all that these clients sent so far has been handled, and what it caused has arrived."""
        for client in (self, *others, self, *others):
            await client.request("get", "<ping xmlns='urn:xmpp:ping'/>", client.boundjid.host)

    def left(self, name):
        return [stanza for stanza in self.received if stanza.name == name]

    async def leave(self):
        if self.transport:
            await asyncio.wait_for(self.disconnect(wait=2), PATIENCE)
