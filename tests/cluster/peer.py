"""What a server of several nodes is to the rounds: it can be started, stopped, killed, stopped in its tracks, cut off.

`ours.py` is this project's, `ejabberd.py` another: whoever adds one writes this class again, and a line in `run.py`."""

import asyncio
import os
import random
import signal
import socket
import time


class Peer:
    """Several nodes. Names of nodes are `NODES`, and `FOURTH` for the round in which one joins."""

    NODES = ["one", "two", "three"]
    FOURTH = "four"
    DOMAIN = "localhost"
    PASSWORD = "secret"
    # Seconds after which nobody may be wrongly online because a node died.
    TTL = 3.5
    # The rounds that it can play (see `rounds.py`).
    KINDS = ("kill", "stop", "blip", "cut", "engine", "empty", "rolling", "fourth")

    async def prepare(self, directory, accounts):
        """Starts what nodes stand on, with these accounts. `directory` is for files, and is gone afterwards."""
        raise NotImplementedError

    async def start(self, node):
        """Returns when the node takes clients. What ends by itself from then on is started again."""
        raise NotImplementedError

    async def leave(self, node):
        """A planned end: returns when the process is gone."""
        raise NotImplementedError

    async def kill(self, node):
        """SIGKILL. The node is not started again before `start`."""
        raise NotImplementedError

    def pause(self, node):
        """SIGSTOP."""
        raise NotImplementedError

    def resume(self, node):
        """SIGCONT."""
        raise NotImplementedError

    async def cut(self, node, is_silent, is_whole):
        """The node loses its engine; `is_silent`: connections hang, else they break; `is_whole`: all that nodes share is lost."""
        raise NotImplementedError

    async def mend(self, node):
        """It has it again."""
        raise NotImplementedError

    async def restart_engine(self, keep):
        """What nodes stand on ends at once and begins again, with its data or without."""
        raise NotImplementedError

    async def is_settled(self):
        """All nodes that should run are one server again, and nothing is on its way between them."""
        raise NotImplementedError

    def ends(self):
        """How often each node has ended by itself."""
        return {}

    async def homes(self, accounts):
        """Where the sessions of each account live, as far as there is such a thing: a node for each, or `None`."""
        return dict.fromkeys(accounts)

    def address(self, node):
        """Where it takes clients in plain text."""
        raise NotImplementedError

    def pids(self, node):
        """Its processes."""
        raise NotImplementedError

    async def close(self):
        """Ends all of it."""
        raise NotImplementedError


def free_port():
    """None of those that the system gives to connections: what was free a moment ago, and while a proxy is away, stays so."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


async def listens(port, seconds=60, alive=lambda: True):
    """Returns when somebody listens there; whether that was so in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        except OSError:
            await asyncio.sleep(0.05)
    return False


class Process:
    """A process that is started again when it ends by itself."""

    def __init__(self, name, command, log, environment=None):
        self.name, self.command, self.log = name, command, log
        self.environment = {**os.environ, **(environment or {})}
        self.wanted, self.child, self.task = False, None, None
        # How often it has ended by itself, with which status.
        self.ends = []

    async def start(self):
        self.wanted = True
        await self._begin()
        self.task = asyncio.create_task(self._watch())

    async def _begin(self):
        with open(self.log, "ab") as log:
            log.write(f"--- {self.name} begins\n".encode())
            log.flush()
            self.child = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    async def _watch(self):
        while True:
            status = await self.child.wait()
            if not self.wanted:
                return
            self.ends.append(status)
            await asyncio.sleep(0.2)
            if not self.wanted:
                return
            await self._begin()

    @property
    def pid(self):
        return self.child.pid

    def is_alive(self):
        return self.child is not None and self.child.returncode is None

    def send(self, number):
        if self.is_alive():
            self.child.send_signal(number)

    async def end(self, number=signal.SIGKILL, seconds=60):
        """Whether it ended in time, without being killed for it."""
        self.wanted, in_time = False, True
        self.send(number)
        try:
            await asyncio.wait_for(asyncio.shield(self.child.wait()), seconds)
        except asyncio.TimeoutError:
            in_time = False
            self.send(signal.SIGKILL)
        if self.task:
            await self.task
        return in_time
