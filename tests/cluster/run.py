#!/usr/bin/env python3
"""Rounds of faults against a server of several nodes under load, and what they have cost: see README.md.

    cargo build --release --features tokio,cluster,redis,postgres --example server
    .ci/postgres tests/cluster/run.py --binary target/release/examples/server --rounds 5
"""

import argparse
import asyncio
import collections
import json
import os
import random
import shutil
import sys
import tempfile
import time

from book import Book
from client import Device
from ejabberd import Ejabberd
from ours import Alone, Ours
from peer import Peer
from rounds import Round, settled
from stock import Stock, command

# What may not be, in any round.
FAULTS = ("lost", "doubled", "misordered", "refused", "not resumed", "wrong", "false", "twice", "late", "stopped", "unsettled", "odd")
# What a round may cost, where a home died, and how it went.
COSTS = ("starved", "gone", "repeated", "died", "resumed", "ends", "pairs")
SLOWEST = ("told", "back", "wait")
# Seconds.
STILL = 0.7


class Load:
    """Clients, and what they do all the time."""

    def __init__(self, peer, book, options):
        self.peer, self.book, self.rate = peer, book, options.rate
        steady = [f"u{n}" for n in range(options.clients)]
        goers = [f"g{n}" for n in range(options.clients // 4)]
        commands = {f"s-{kind}": command(kind) for kind in options.stock.split(",") if kind}
        for kind in [kind for kind, found in commands.items() if not found]:
            print(f"SKIPPED: {kind}: it is not installed")
            commands.pop(kind)
        self.away = [f"a{n}" for n in range(options.clients // 4)]
        self.accounts = [*steady, *goers, *self.away, *commands]
        book.accounts = self.accounts
        ring = [*steady, *goers, *commands]
        random.Random(1).shuffle(ring)
        for at, account in enumerate(ring):
            self.book.contacts[account] = {ring[(at + by) % len(ring)] for by in (-2, -1, 1, 2)} - {account}
        self.main = {account: Device(peer, book, account, "r") for account in steady + goers}
        self.own = list(self.main.values())
        self.main |= {account: Stock(peer, book, account, found) for account, found in commands.items()}
        self.goers = [self.main[account] for account in goers]
        # They watch, and take no messages.
        self.second = [Device(peer, book, account, "w", -1) for account in steady[::3]]
        self.inboxes = {account: Device(peer, book, account, "r") for account in self.away}
        book.devices += [*self.main.values(), *self.second]
        self.tasks, self.going, self.is_on = [], set(), False
        self.edit = 0
        self.lag = 0

    async def log_in(self):
        for device in self.book.devices:
            device.start()
            await asyncio.sleep(0.01)
        await self.all_ready()

    async def befriend(self):
        """Each account is a contact of some others; both ends ask, and both grant."""
        for account, contacts in self.book.contacts.items():
            for contact in contacts:
                self.main[account].subscribe(f"{contact}@{self.peer.DOMAIN}")
            await asyncio.sleep(0.02)

    async def until_friends(self, seconds=60):
        """Everybody sees who is there."""
        deadline, missing = time.monotonic() + seconds, True
        while missing and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            missing = [
                f"{device.session.jid} sees nothing of {contact}"
                for device in self.book.devices
                for contact in self.book.contacts[device.account]
                if device.session and not any(jid.startswith(f"{contact}@") for jid in device.session.seen)
            ]
        if missing:
            print("before anything was done:", "; ".join(missing), flush=True)

    async def all_ready(self, seconds=90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(device.ready.is_set() for device in self.book.devices if device.stay):
                return True
            await asyncio.sleep(0.1)
        return False

    def begin(self):
        self.is_on, self.lag = True, 0
        self.tasks = [asyncio.create_task(self._clock()), asyncio.create_task(self._write()), asyncio.create_task(self._change()), asyncio.create_task(self._go())]

    async def end(self):
        """Everybody is there, and says nothing more."""
        self.is_on = False
        await asyncio.gather(*self.tasks)

    async def _write(self):
        began, done = time.monotonic(), 0
        senders = list(self.main.values())
        while self.is_on:
            for _ in range(int((time.monotonic() - began) * self.rate) - done):
                done += 1
                sender = random.choice(senders)
                if sender.ready.is_set():
                    self._write_one(sender)
            await asyncio.sleep(0.02)

    def _write_one(self, sender):
        chance = random.random()
        if chance < 0.15:
            self.book.send(sender, f"{random.choice(self.away)}@{self.peer.DOMAIN}", "away")
            return
        # Rows to few are longer than to many.
        to = random.choice(sorted(self.book.contacts[sender.account]))
        if chance < 0.35:
            self.book.send(sender, f"{to}@{self.peer.DOMAIN}", "bare")
        elif self.main[to].session:
            self.book.send(sender, self.main[to].session.jid, "full")

    async def _change(self):
        """Presence, and rosters."""
        while self.is_on:
            await asyncio.sleep(0.1)
            device = random.choice(self.book.devices)
            if device.ready.is_set():
                device.say()
            device = random.choice(self.own)
            if device.ready.is_set():
                self.edit += 1
                contact = f"c{random.randrange(8)}@remote.example"
                answer = self.book.edited(device.account, contact, self.edit)
                query = f"<query xmlns='jabber:iq:roster'><item jid='{contact}' name='{self.edit}'/></query>"
                device.ask("set", query, answer)

    async def _clock(self):
        """How long this machine stands still."""
        while self.is_on:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            self.lag = max(self.lag, time.monotonic() - began - 0.05)

    async def _go(self):
        """Some come and go."""
        while self.is_on:
            await asyncio.sleep(0.5)
            device = random.choice(self.goers)
            if device.ready.is_set() and device.stay:
                task = asyncio.create_task(self._leave_and_come(device))
                self.going.add(task)
                task.add_done_callback(self.going.discard)
        await asyncio.gather(*self.going)

    async def _leave_and_come(self, device):
        await device.stop()
        await asyncio.sleep(random.uniform(0, 2))
        device.start()

    async def fetch(self):
        """Who was away looks what there is."""
        for device in self.inboxes.values():
            device.start()
        deadline = time.monotonic() + 60
        for device in self.inboxes.values():
            while time.monotonic() < deadline and not await device.ping():
                await asyncio.sleep(0.1)
        # What comes twice shall be seen.
        await asyncio.sleep(0.5)
        await asyncio.gather(*(device.stop() for device in self.inboxes.values()))

    async def quiet(self, seconds=30):
        """All that was sent has arrived, or does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            away = [m for m in self.book.messages.values() if m.to in self.inboxes and not m.arrivals]
            if self.book.is_complete(ignoring=away):
                break
            await asyncio.sleep(0.2)
        await asyncio.gather(*(device.ping() for device in self.book.devices))
        await asyncio.sleep(0.5)

    async def look(self):
        """Rosters are asked for once more."""
        for device in self.own:
            device.ask("get", "<query xmlns='jabber:iq:roster'/>", lambda element, d=device: d.heard_roster(element))
        await asyncio.gather(*(device.ping() for device in self.own))


async def play(kind, peer, load, book, options):
    book.begin()
    round_ = Round(kind, peer, book, load.away, tuple(map(float, options.cut.split("-"))))
    began = time.monotonic()
    load.begin()
    await asyncio.sleep(random.uniform(1, 3))
    await round_.play()
    unsettled = 0
    if not await settled(peer):
        unsettled += 1
        round_.note("the nodes are not one server again")
    await asyncio.sleep(1)
    await load.end()
    if not await load.all_ready():
        unsettled += 1
        round_.note(f"no session: {', '.join(d.label for d in book.devices if not d.ready.is_set())}")
    await load.quiet()
    await load.fetch()
    await load.look()
    stopped, still = round_.stopped(), load.lag
    count = book.judge(round_)
    # A machine that stands still stops nodes as well as clients.
    count["starved" if still > STILL else "stopped"] = len(stopped)
    if stopped:
        round_.note(f"stopped by itself: {', '.join(stopped)}; the machine stood still for up to {still:.1f} s")
    count["unsettled"], count["odd"] = unsettled, sum(book.oddities.values())
    for oddity, times in book.oddities.items():
        round_.note(f"{oddity} ({times} times)")
    book.oddities.clear()
    count["seconds"] = time.monotonic() - began
    faults = {name: count[name] for name in FAULTS if count[name]}
    costs = {name: count[name] for name in COSTS if count[name]}
    slowest = ", ".join(f"{name} {count[name]:.1f} s" for name in SLOWEST if count[name])
    errors = ", ".join(f"{condition} {times}" for condition, times in book.stream_errors.items())
    print(f"{'FAILED' if faults else 'ok    '} {kind}: {round_.what}; sent {count['sent']}, {words(costs)}; {slowest}; "
          f"streams ended: {errors or 'none'}; {count['seconds']:.0f} s{'; ' + words(faults).upper() if faults else ''}", flush=True)
    for note in round_.notes[: options.notes]:
        print(f"         {note}", flush=True)
    return count


def words(counts):
    return ", ".join(f"{name} {value}" for name, value in counts.items())


def table(totals):
    """Sums, but the longest of times."""
    lines = ["", "| round | rounds | sent | " + " | ".join((*FAULTS, *COSTS, *(f"{s}, s" for s in SLOWEST))) + " |"]
    lines.append("|" + "---|" * (3 + len(FAULTS) + len(COSTS) + len(SLOWEST)))
    for kind, counts in totals.items():
        cells = [kind, len(counts), sum(c["sent"] for c in counts)]
        cells += [sum(c[name] for c in counts) for name in (*FAULTS, *COSTS)]
        cells += [f"{max(c[name] for c in counts):.1f}" for name in SLOWEST]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def tables(path):
    """Of all runs that have written their results there."""
    with open(path, encoding="utf-8") as file:
        rounds = [json.loads(line) for line in file]
    for name in dict.fromkeys(name for name, _, _ in rounds):
        totals = collections.defaultdict(list)
        for _, kind, count in (one for one in rounds if one[0] == name):
            totals[kind].append(collections.Counter(count))
        print(f"\n{name}:\n{table(totals)}")


def peers(options):
    if options.peer == "alone":
        return [Alone(options.binary)]
    if options.peer == "ejabberd":
        return [Ejabberd()]
    return [Ours(options.binary, engine, options.log) for engine in options.engine.split(",")]


async def main(options):
    failed, summary = 0, []
    for peer in peers(options):
        directory = tempfile.mkdtemp(prefix="cluster-")
        totals = collections.defaultdict(list)
        name = getattr(peer, "engine", options.peer)
        print(f"-- {name}: {directory}", flush=True)
        book = Book(list(peer.NODES))
        if options.trace:
            book.traces = os.path.join(directory, "wires")
            os.makedirs(book.traces)
        load = Load(peer, book, options)
        bad = 0
        try:
            await peer.prepare(directory, load.accounts)
            await asyncio.gather(*(peer.start(node) for node in peer.NODES))
            assert await settled(peer), "the nodes are not one server"
            await load.log_in()
            await load.befriend()
            await load.quiet()
            await load.until_friends()
            kinds = [kind for kind in options.kinds.split(",") if kind in peer.KINDS]
            for number in range(options.rounds):
                for kind in kinds:
                    count = await play(kind, peer, load, book, options)
                    totals[kind].append(count)
                    if options.results:
                        with open(options.results, "a", encoding="utf-8") as file:
                            file.write(json.dumps([name, kind, count]) + "\n")
                    bad += any(count[fault] for fault in FAULTS)
                if number % 10 == 9:
                    print(table(totals), flush=True)
        finally:
            for device in [*load.own, *load.second, *load.inboxes.values()]:
                # One that hears nothing of being cancelled ends all the same.
                device.stay, device.session = False, None
            await asyncio.gather(*(device.stop() for device in load.main.values() if device not in load.own and device.process))
            await peer.close()
            summary.append(f"\n{name}:\n{table(totals)}")
        failed += bad
        if bad:
            print(f"logs: {directory}")
        else:
            shutil.rmtree(directory)
    print("".join(summary))
    print(f"{failed} rounds failed" if failed else "all rounds passed")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/examples/server")
    parser.add_argument("--peer", choices=["ours", "alone", "ejabberd"], default="ours")
    parser.add_argument("--engine", default="redis,postgres", help="which engines, one after the other")
    parser.add_argument("--kinds", default=",".join(Peer.KINDS))
    parser.add_argument("--rounds", type=int, default=100, help="of each kind, on each engine")
    parser.add_argument("--cut", default="5-12", help="seconds for which a node is cut off, at least and at most")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--stock", default="slixmpp,xmppjs", help="clients of others that take part")
    parser.add_argument("--rate", type=float, default=40, help="messages a second")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--notes", type=int, default=12, help="so many lines for what went wrong in a round")
    parser.add_argument("--trace", action="store_true", help="keep what goes over the clients' connections")
    parser.add_argument("--log", default="info")
    parser.add_argument("--results", metavar="FILE", help="each round is added to it: several runs may do so at once")
    parser.add_argument("--table", metavar="FILE", help="prints the table of such a file, and plays nothing")
    arguments = parser.parse_args()
    if arguments.table:
        tables(arguments.table)
        sys.exit()
    if arguments.seed is None:
        arguments.seed = random.randrange(1 << 32)
    print(f"seed {arguments.seed}")
    random.seed(arguments.seed)
    sys.exit(asyncio.run(main(arguments)))
