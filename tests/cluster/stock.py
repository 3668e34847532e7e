"""Clients of others, slixmpp and xmpp.js, each a process of its own: what they hear goes into the same book."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time

from client import Session

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.join(HERE, os.pardir, "clients")
PYTHON = os.path.join(CLIENTS, ".venv", "bin", "python")


def command(kind):
    """How it is started; `None` where it is not installed (`tests/clients/run` does that)."""
    if kind == "xmppjs":
        there = shutil.which("node") and os.path.isdir(os.path.join(CLIENTS, "xmppjs", "node_modules", "@xmpp", "client"))
        return ["node", os.path.join(HERE, "stock_xmppjs.js")] if there else None
    for python in (PYTHON, sys.executable):
        if os.path.exists(python) and subprocess.run([python, "-c", "import slixmpp"], stderr=subprocess.DEVNULL).returncode == 0:
            return [python, os.path.join(HERE, "stock_slixmpp.py")]
    return None


class Stock:
    """What `client.Device` is, as far as the rounds need it."""

    name, node = "stock", None

    def __init__(self, peer, book, account, command_):
        self.peer, self.book, self.account, self.command = peer, book, account, command_
        self.session, self.ready, self.stay, self.status = None, asyncio.Event(), False, 1
        self.waiting, self.process, self.has_failed = {}, None, False

    @property
    def label(self):
        return self.account

    def start(self):
        self.stay = True
        self.task = asyncio.create_task(self._run())

    async def stop(self):
        self.stay = False
        self.process.stdin.close()
        await self.process.wait()

    async def _run(self):
        ports = [str(self.peer.address(node)[1]) for node in self.peer.NODES]
        with open(self.peer.path(f"{self.account}.log"), "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, self.account, self.peer.PASSWORD, self.peer.DOMAIN, *ports,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, limit=1 << 20,
                # Certificates are made up.
                env={**os.environ, "NODE_TLS_REJECT_UNAUTHORIZED": "0"},
            )
        async for line in self.process.stdout:
            what, *rest = json.loads(line)
            getattr(self, f"_{what}")(*rest)
        status = await self.process.wait()
        if self.stay:
            self.book.oddities[f"the process of {self.account} has ended, with {status}"] += 1

    def _session(self, jid):
        if self.session:
            self._failed()
        self.session = Session(self, jid)
        self.status = 1
        self.book.bound(self, self.session)
        self._up()

    def _resumed(self):
        self.book.resumed(self)
        # What was said while the connection was lost it may not have sent.
        self._do("say", self.status)
        self._up()

    def _up(self):
        self.ready.set()
        self.book.is_back(self)

    def _down(self):
        self.ready.clear()

    def _failed(self):
        if self.session:
            self.session.end("lost")
            self.book.refused(self, self.session)
            self.session = None

    def _message(self, kind, body):
        if self.session and body:
            self.book.heard(self.session, body, kind == "error" and "error")

    def _presence(self, kind, source, status):
        session = self.session
        if session is None:
            return
        if kind == "":
            session.seen[source] = int(status or 0)
            session.knew.add(source)
        elif kind == "unavailable":
            session.seen.pop(source, None)
            session.ends[source].append(time.monotonic())

    def _acked(self, body):
        acknowledged = self.waiting.pop(body, None)
        if acknowledged:
            acknowledged()

    def _do(self, *what):
        self.process.stdin.write(json.dumps(what).encode() + b"\n")

    def send_message(self, to, name, body, acknowledged):
        self.waiting[body] = acknowledged
        self._do("message", to, body)

    def say(self):
        self.status += 1
        self._do("say", self.status)

    def subscribe(self, to):
        self._do("subscribe", to)

    async def ping(self, seconds=10):
        return self.ready.is_set()
