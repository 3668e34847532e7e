"""The rounds: what is done to a server while clients go on, and what that may cost."""

import asyncio
import random
import time

from book import SLACK


class Round:
    """`died`: accounts whose sessions may be lost, since their home is."""

    def __init__(self, kind, peer, book, away, cut):
        self.kind, self.peer, self.book, self.away, self.cut = kind, peer, book, away, cut
        self.died, self.notes, self.what = set(), [], ""
        self.node, self.ends = None, peer.ends()
        self.told_within = peer.TTL + SLACK

    def note(self, text):
        self.notes.append(text)

    async def play(self):
        await getattr(self, f"_{self.kind}")()

    async def _fault(self, node=None):
        """From now on times count. Sessions that live at `node` may be lost."""
        self.node = node
        if node:
            homes = await self.peer.homes(self.book.accounts)
            # Where a server has no homes, a session lives where its client is connected.
            edges = {device.account: device.node for device in self.book.devices}
            self.died = {account for account, home in homes.items() if (home or edges.get(account, node)) == node}
        self.book.fault = time.monotonic()

    def stopped(self):
        """Nodes that have stopped by themselves, and were not made to; what they had is lost."""
        ends = self.peer.ends()
        nodes = [node for node in ends if node != self.node and ends[node] > self.ends.get(node, 0)]
        if nodes:
            self.died = set(self.book.accounts)
            # Nobody knows when.
            self.told_within = float("inf")
        return nodes

    async def _kill(self):
        node = random.choice(self.peer.NODES)
        pause = random.uniform(0, 6)
        self.what = f"{node}, started again after {pause:.1f} s"
        await self._fault(node)
        await self.peer.kill(node)
        await asyncio.sleep(pause)
        await self.peer.start(node)

    async def _stop(self):
        node = random.choice(self.peer.NODES)
        self.what = f"{node} for 20 s"
        await self._fault(node)
        self.peer.pause(node)
        await asyncio.sleep(20)
        self.peer.resume(node)

    async def _blip(self):
        """What is mended before the deadline nobody notices."""
        await self._cut(1.0)

    async def _cut(self, seconds=None):
        node = random.choice(self.peer.NODES)
        seconds = seconds or random.uniform(*self.cut)
        is_silent, is_whole = random.random() < 0.5, random.random() < 0.5
        words = ("silent" if is_silent else "broken", "all that it shares" if is_whole else "its engine")
        self.what = f"{node} for {seconds:.1f} s, {words[0]}, {words[1]}"
        await self._fault(node)
        lives = seconds < self.peer.TTL / 2
        if lives:
            self.node, died, self.died = None, self.died, set()
        await self.peer.cut(node, is_silent, is_whole)
        await asyncio.sleep(seconds)
        await self.peer.mend(node)
        away = time.monotonic() - self.book.fault
        if lives and away > self.peer.TTL / 2:
            # A busy machine took its time.
            self.node, self.died = node, died
            self.what += f", mended after {away:.1f} s: too long"

    async def _engine(self, keep=True):
        await self._fault()
        await self.peer.restart_engine(keep)
        away = time.monotonic() - self.book.fault
        self.what = f"away for {away:.1f} s"
        if away > self.peer.TTL / 2:
            # Nodes had to stop: all that they had is lost.
            self.died = set(self.book.accounts)
            self.what += ": too long"
            self.ends = dict.fromkeys(self.ends, 1 << 30)

    async def _empty(self):
        await self._engine(False)

    async def _rolling(self):
        await self._fault()
        times = []
        for node in self.peer.NODES:
            began = time.monotonic()
            await self.peer.leave(node)
            left = time.monotonic()
            await self.peer.start(node)
            started = time.monotonic()
            await settled(self.peer)
            times.append(f"{left - began:.1f} + {started - left:.1f} + {time.monotonic() - started:.1f}")
        self.what = f"left, started, slots back: {'; '.join(times)} s"

    async def _fourth(self):
        await self._fault()
        node, began = self.peer.FOURTH, time.monotonic()
        await self.peer.start(node)
        self.book.nodes.append(node)
        await settled(self.peer)
        joined = time.monotonic()
        await asyncio.sleep(random.uniform(0, 3))
        self.book.nodes.remove(node)
        leaving = time.monotonic()
        await self.peer.leave(node)
        self.what = f"joined in {joined - began:.1f} s, left in {time.monotonic() - leaving:.1f} s"


async def settled(peer, seconds=60):
    """Waits until the nodes are one server. Whether they are."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await peer.is_settled():
            return True
        await asyncio.sleep(0.2)
    return False
