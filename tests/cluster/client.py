"""A client in plain text on one event loop: cheap enough that some hundred of them are a load, and not a load of their own.

It resumes its session (XEP-0198), also through another node, and binds a new one where that is refused. What it hears and
does is told to its `book`. No resource is used twice, so that a full JID is one session."""

import asyncio
import base64
import collections
import random
import time
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

CLIENT = "{jabber:client}"
ROSTER = "{jabber:iq:roster}"
SM = "{urn:xmpp:sm:3}"
# A server that says nothing for so long is asked, and then left.
QUIET, PATIENCE = 2.0, 6.0


class Lost(Exception):
    """The stream is over."""


class Wire(asyncio.Protocol):
    """A stream: first-level elements go to `take`."""

    def __init__(self, take, over, trace):
        self.take, self.over, self.trace = take, over, trace
        self.parser, self.depth, self.root, self.transport = None, 0, None, None
        self.heard = time.monotonic()
        # The server has ended the stream, without saying that anything is wrong.
        self.is_closed = self.has_failed = self.has_ended = False

    def connection_made(self, transport):
        self.transport = transport

    def open(self, domain):
        self.parser, self.depth = ET.XMLPullParser(("start", "end")), 0
        self.write(
            f"<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )

    def write(self, text):
        if not self.transport.is_closing():
            self.trace(">", text)
            self.transport.write(text.encode())

    def data_received(self, data):
        self.heard = time.monotonic()
        self.trace("<", data.decode(errors="replace"))
        try:
            self.parser.feed(data)
            for event, element in self.parser.read_events():
                if event == "start":
                    self.depth += 1
                    if self.depth == 1:
                        self.root = element
                    continue
                self.depth -= 1
                if self.depth == 1:
                    self.take(element)
                    self.root.clear()
                elif self.depth == 0:
                    self.is_closed = True
                    self.transport.abort()
        except ET.ParseError:
            self.transport.abort()

    def connection_lost(self, _):
        self.over()

    def abort(self):
        if self.transport:
            self.transport.abort()


class Session:
    """From one bind to its end. `ended` is when its client knew, and `how`."""

    def __init__(self, device, jid):
        self.device, self.jid, self.began = device, jid, time.monotonic()
        self.ended = self.how = self.id = self.closing = None
        self.is_closed = False
        self.received = self.sent = self.acknowledged = 0
        self.unacknowledged = collections.deque()
        # By the full JID of a contact: whether it is there and the last status; and when it was told to have gone.
        self.seen, self.knew, self.ends = {}, set(), collections.defaultdict(list)

    def end(self, how):
        if self.ended is None:
            self.ended, self.how = time.monotonic(), how


class Device:
    """One device of an account, which is online as long as `stay` says so."""

    def __init__(self, peer, book, account, name, priority=0):
        self.peer, self.book, self.account, self.name, self.priority = peer, book, account, name, priority
        self.binds = self.ids = self.status = self.resumed = self.refused = 0
        self.session, self.wire, self.node = None, None, None
        self.ready = asyncio.Event()
        self.stay, self.task, self.inbox = False, None, None
        # It has been offline of its own will.
        self.is_new = True
        self.answers = {}
        self.streams, self.over, self.is_resuming = 0, None, False
        # Nodes that said nothing are tried later than others, until then.
        self.avoided = {}

    @property
    def label(self):
        return f"{self.account}/{self.name}"

    def start(self):
        self.stay = self.is_new = True
        self.task = asyncio.create_task(self._run())

    async def stop(self):
        """Logs out. Where the stream breaks meanwhile it resumes, and logs out then: the server shall not wait for it."""
        self.stay = False
        if self.ready.is_set():
            self._close()
        elif self.session is None and self.wire:
            self.wire.abort()
        await self.task

    def _close(self):
        self.ready.clear()
        self.session.closing = self.session.closing or time.monotonic()
        self._send("<presence type='unavailable'/>", None)
        # What comes meanwhile and is not acknowledged at the end is kept for the next session: nothing comes any more
        # once the server has said that this one is unavailable.
        asyncio.get_running_loop().call_later(3, self._hang_up, self.wire)

    def _hang_up(self, wire):
        if wire is self.wire and self.session and not wire.has_ended:
            wire.has_ended = self.session.is_closed = True
            wire.write(f"<a xmlns='urn:xmpp:sm:3' h='{self.session.received}'/></stream:stream>")

    async def _run(self):
        while self.stay or self.session:
            try:
                await self._connect()
                if not self.stay:
                    self._close()
                await self.over.wait()
            except (Lost, OSError):
                pass
            except asyncio.TimeoutError:
                self.avoided[self.node] = time.monotonic() + 10
            self.ready.clear()
            if self.wire:
                self.wire.abort()
                if self.session and self.session.closing and self.wire.is_closed and not self.wire.has_failed:
                    self._end("closed")
            self.wire = None
            if self.stay or self.session:
                await asyncio.sleep(random.uniform(0.05, 0.4))

    def _end(self, how):
        self.session.end(how)
        self.session = None
        answers, self.answers = self.answers, {}
        for answer in answers.values():
            answer(None)

    def _trace(self, way, text):
        if self.book.traces:
            with open(f"{self.book.traces}/{self.account}-{self.name}", "a", encoding="utf-8") as file:
                file.write(f"{self.book.clock():9.3f} {self.node} {way} {text}\n")

    def _choose(self):
        now = time.monotonic()
        return random.choice([n for n in self.book.nodes if self.avoided.get(n, 0) < now] or self.book.nodes)

    async def _connect(self):
        self.node = self._choose()
        self.over, self.inbox, self.is_resuming = asyncio.Event(), asyncio.Queue(), False
        connect = asyncio.get_running_loop().create_connection(
            lambda: Wire(self._take, self._over, self._trace), *self.peer.address(self.node)
        )
        _, self.wire = await asyncio.wait_for(connect, PATIENCE)
        self.streams += 1
        self.wire.open(self.peer.DOMAIN)
        await self._next("features")
        token = base64.b64encode(f"\0{self.account}\0{self.peer.PASSWORD}".encode()).decode()
        self.wire.write(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{token}</auth>")
        await self._next("success")
        self.wire.open(self.peer.DOMAIN)
        await self._next("features")
        if not (self.session and await self._resume()):
            if not self.stay:
                raise Lost
            await self._bind()
        self.inbox = None
        self.ready.set()
        if not self.is_new:
            self.book.is_back(self)
        self.is_new = False
        self.quiet = asyncio.create_task(self._watch(self.wire, self.over))

    async def _resume(self):
        session, self.is_resuming = self.session, True
        self.wire.write(f"<resume xmlns='urn:xmpp:sm:3' previd='{escape(session.id)}' h='{session.received}'/>")
        answer = await self._next("resumed", "failed")
        self._acknowledge(session, answer.get("h"))
        if answer.tag == SM + "resumed":
            self.resumed += 1
            self.book.resumed(self)
            self.is_resuming = False
            for text, _ in session.unacknowledged:
                self.wire.write(text)
            self.wire.write("<r xmlns='urn:xmpp:sm:3'/>")
            return True
        self.refused += 1
        self.is_resuming = False
        # Where it had closed its stream the server may have known.
        self._end("closed" if session.is_closed else "lost")
        if not session.is_closed:
            self.book.refused(self, session)
        return False

    async def _bind(self):
        self.binds += 1
        resource = f"{self.name}-{self.binds}"
        bind = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>"
        self.wire.write(f"<iq type='set' id='bind'>{bind}</iq>")
        answer = await self._next("iq")
        if answer.get("type") != "result":
            raise Lost
        session = Session(self, answer.find(".//{urn:ietf:params:xml:ns:xmpp-bind}jid").text)
        self.wire.write("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        session.id = (await self._next("enabled")).get("id")
        self.session = session
        self.book.bound(self, session)
        self._send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>", None)
        self.say()

    async def _next(self, *names):
        """The next element of the negotiation, which is one of these."""
        element = await asyncio.wait_for(self.inbox.get(), PATIENCE)
        if element is None or element.tag.split("}")[1] not in names:
            if element is not None:
                self.book.odd(self, "features of login", element)
            raise Lost
        return element

    def _over(self):
        self.over.set()
        if self.inbox:
            self.inbox.put_nowait(None)

    async def _watch(self, wire, over):
        """Asks a server that is quiet, and leaves one that does not answer."""
        while not over.is_set():
            await asyncio.sleep(0.5)
            silent = time.monotonic() - wire.heard
            if silent > PATIENCE:
                self.book.silent(self)
                self.avoided[self.node] = time.monotonic() + 10
                wire.abort()
                over.set()
            elif silent > QUIET or self.session and self.session.unacknowledged:
                wire.write("<r xmlns='urn:xmpp:sm:3'/>")

    def _take(self, element):
        kind = element.tag.split("}")[1]
        if element.tag.startswith("{http://etherx.jabber.org/streams}") and kind == "error":
            self.wire.has_failed = True
            self.book.stream_error(self, element[0].tag.split("}")[1] if len(element) else "")
            return
        # What comes behind <resumed/> may be in the same read.
        if self.inbox is not None and kind not in ("message", "presence") and (kind != "iq" or element.get("id") == "bind"):
            if kind not in ("r", "a"):
                self.inbox.put_nowait(element)
                return
        session = self.session
        if element.tag == SM + "r":
            self.wire.write(f"<a xmlns='urn:xmpp:sm:3' h='{session.received}'/>")
        elif element.tag == SM + "a":
            self._acknowledge(session, element.get("h"))
        elif element.tag.startswith(CLIENT):
            # Behind its close tag a client takes nothing, nor counts it: that comes again where the session is resumed.
            session.received += not self.wire.has_ended
            getattr(self, f"_take_{kind}")(session, element)

    def _take_message(self, session, element):
        if not self.wire.has_ended:
            self.book.message(self, session, element)

    def _take_presence(self, session, element):
        kind, source = element.get("type"), element.get("from")
        if kind is None:
            status = element.find(CLIENT + "status")
            session.seen[source] = int(status.text) if status is not None else 0
            session.knew.add(source)
        elif kind == "unavailable":
            session.seen.pop(source, None)
            session.ends[source].append(time.monotonic())
            if source == session.jid:
                self._hang_up(self.wire)
        elif kind == "subscribe":
            self._send(f"<presence to='{source}' type='subscribed'/>", None)

    def _take_iq(self, session, element):
        kind, name = element.get("type"), element.get("id")
        query = element.find(ROSTER + "query")
        if kind == "set" and query is not None:
            for item in query:
                self.book.pushed(self, item)
            self._send(f"<iq type='result' id='{escape(name)}'/>", None)
        elif name == "roster":
            self.heard_roster(element)
        elif name in self.answers:  # also of a stream before, whose session goes on
            self.answers.pop(name)(element)

    def _acknowledge(self, session, h):
        if h is None:
            return
        while session.acknowledged < int(h) and session.unacknowledged:
            session.acknowledged += 1
            _, told = session.unacknowledged.popleft()
            if told:
                told()

    def _send(self, text, acknowledged):
        """Part of the session: sent again where it is resumed."""
        session = self.session
        session.sent += 1
        session.unacknowledged.append((text, acknowledged))
        # What is said while the session is resumed goes behind what is said again.
        if self.wire and not self.is_resuming:
            self.wire.write(text)

    def send_message(self, to, name, body, acknowledged):
        text = f"<message to='{to}' type='chat' id='{name}'><body>{body}</body></message>"
        self._send(text + ("<r xmlns='urn:xmpp:sm:3'/>" if self.session.sent % 5 == 0 else ""), acknowledged)

    def say(self):
        """Presence with a new number."""
        self.status += 1
        self._send(f"<presence><status>{self.status}</status><priority>{self.priority}</priority></presence>", None)

    def subscribe(self, to):
        self._send(f"<presence to='{to}' type='subscribe'/>", None)

    def ask(self, kind, payload, answer, to=None):
        self.ids += 1
        name = f"{self.name}-{self.binds}-{self.ids}"
        self.answers[name] = answer
        to = f" to='{to}'" if to else ""
        self._send(f"<iq type='{kind}' id='{name}'{to}>{payload}</iq>", None)

    def heard_roster(self, element):
        if element is not None and element.get("type") == "result":
            self.book.roster(self, element.find(ROSTER + "query"))

    async def ping(self, seconds=10):
        """Whether the server answers, behind all that was sent."""
        if not self.ready.is_set():
            return False
        done = asyncio.get_running_loop().create_future()
        payload = "<ping xmlns='urn:xmpp:ping'/>"
        self.ask("get", payload, lambda element: done.done() or done.set_result(element is not None), self.peer.DOMAIN)
        try:
            return await asyncio.wait_for(done, seconds)
        except asyncio.TimeoutError:
            return False
