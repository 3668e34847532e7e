#!/usr/bin/env python3
"""What messages, presence and logins cost on three nodes, beside one node and beside three of ejabberd, by turns; and how long
the death of a node is felt.

    cargo build --release --features tokio,cluster,redis,postgres --example server --example load
    .ci/postgres tests/cluster/measure.py --rounds 3
    .ci/postgres tests/cluster/measure.py --peers nodes,ejabberd --work kill --rounds 1
    .ci/postgres tests/cluster/measure.py --peers nodes --work leave

Each account of three nodes lives at another node than whom it writes to, and its client is connected to neither: every message takes
three ways between nodes, where one in nine would by chance. `examples/load` makes the load and checks all that is delivered.
CPU is user and system time of all server processes, from `/proc`. No proxies are between them. ejabberd is Debian's, and is left
out where it is not installed. On a machine with other work to do, `chrt -r 1` in front of the script keeps that out of the way, and
turns are what makes figures comparable."""

import argparse
import asyncio
import collections
import json
import re
import shutil
import statistics
import sys
import tempfile
import time

from book import Book
from client import Device
from ejabberd import Ejabberd
from ours import Alone, Ours
from peer import Peer, Process, free_port
from rounds import settled

# What `examples/load` is asked for: whose accounts, how many, and for what.
WORK = {
    "messages": ("m", 198, ["--messages", "500"]),
    "steady": ("m", 198, ["--steady", "20", "--rate", "1000"]),
    "presence": ("p", 99, ["--contacts", "20", "--rounds", "50"]),
    "logins": ("m", 198, ["--logins", "2000"]),
}
# Of accounts to choose from, so that there are enough of each home.
CHOICE = {"m": 900, "p": 450, "k": 60}


class One(Alone):
    """All accounts are there, and no password is hashed, as at ejabberd."""

    async def _make(self, accounts):
        pass

    async def _set_up(self, node):
        await super()._set_up(node)
        self.nodes[node].command += self.options


class Nodes(Ours):
    """The same, without proxies."""

    async def _make(self, accounts):
        pass

    async def _set_up(self, node):
        self.ports[node], self.proxies[node] = free_port(), {}
        data = int(re.search(r":(\d+)/", self.database).group(1))
        command = [self.binary, *self.command(node, {"redis": self.redis_port, "data": data})]
        self.nodes[node] = Process(node, command, self.path(f"{node}.log"))

    def beside(self):
        return [self.redis.pid]


def place(peer, homes, count):
    """Accounts with the node that each connects to, in a ring in which neighbours have nothing in common."""
    nodes = [node for node in peer.NODES]
    of_home = collections.defaultdict(list)
    for account, home in homes.items():
        of_home[home].append(account)
    ring = []
    for n in range(count):
        home = nodes[n % len(nodes)]
        rest = of_home[home] if of_home[home] else of_home[None]
        ring.append((rest.pop(0), home))
    if None in of_home or len(nodes) == 1:
        # Where it connects is where it lives.
        return ring
    return [(account, nodes[(nodes.index(home) + 1) % len(nodes)]) for account, home in ring]


def accounts(prefix, peer, nth):
    """New ones each time: nobody has a roster."""
    return [f"{prefix}{nth}-{type(peer).__name__.lower()}-{n}" for n in range(CHOICE[prefix])]


async def work(peer, name, nth, options):
    prefix, count, arguments = WORK[name]
    homes = await peer.homes(accounts(prefix, peer, nth))
    listed = f"{peer.directory}/{name}"
    with open(listed, "w", encoding="utf-8") as file:
        for account, node in place(peer, homes, count):
            file.write("%s %s:%d\n" % (account, *peer.address(node)))
    pids = [pid for node in peer.NODES for pid in peer.pids(node)]
    beside = peer.beside() if isinstance(peer, Nodes) else []
    load = [options.load, "--accounts", listed, "--domain", peer.DOMAIN, "--password", peer.PASSWORD, *arguments]
    load += ["--pid", ",".join(map(str, pids + beside))]
    process = await asyncio.create_subprocess_exec(*load, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, error = await process.communicate()
    assert process.returncode == 0, f"{peer.directory}: {' '.join(load)}: {out.decode()}{error.decode()}"
    return read(out.decode(), pids)


def read(text, pids):
    """What `examples/load` has said."""
    found = {"nodes, µs": 0.0}
    for pid, micros in re.findall(r"process (\d+): \S+ s of CPU, (\S+) µs", text):
        if int(pid) in pids:
            found["nodes, µs"] += float(micros)
        else:
            found["Redis, µs"] = float(micros)
    rate = re.search(r"\d+ (?:messages|presences|logins),.*? (\d+) (?:messages|presences|logins)/s", text)
    if rate:
        found["a second"] = float(rate.group(1))
    for name, millis in re.findall(r"(median|99 %|99\.9 %|max) ([\d.]+)", text):
        found[f"{name}, ms"] = float(millis)
    return found


async def kill(peer, nth, crowd):
    """How long each of those who have to do with a node that is killed feels it."""
    book, devices = crowd
    node = peer.NODES[nth % len(peer.NODES)]
    homes = await peer.homes({device.account for device in devices})
    hit = {device for device in devices if (homes[device.account] or device.node) == node}
    gone = {device.session.jid for device in hit}
    watching = [device.session for device in devices if device not in hit]
    pairs = [(session, jid) for session in watching for jid in gone & set(session.seen)]
    book.begin()
    book.fault = time.monotonic()
    await peer.kill(node)
    found = {}
    if isinstance(peer, Nodes):
        while True:
            record = await peer._record()
            if record and all(owner != node and not to for owner, to in record[1]):
                break
            await asyncio.sleep(0.02)
        found["slots owned again, s"] = time.monotonic() - book.fault
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        back = [book.returns[device] for device in hit if device in book.returns and device.ready.is_set()]
        told = [session.ends[jid][0] - book.fault for session, jid in pairs if session.ends[jid]]
        if len(back) == len(hit) and len(told) == len(pairs):
            break
        await asyncio.sleep(0.1)
    for name, times, all_of in (("watchers told", told, len(pairs)), ("clients logged in again", back, len(hit))):
        if times:
            found[f"{name}, s, first"], found[f"{name}, s, last"] = min(times), max(times)
        found[f"{name}, never"] = all_of - len(times)
    await peer.start(node)
    assert await settled(peer), "the nodes are not one server again"
    await ready(devices)
    await asyncio.sleep(1)
    return found


async def leave(peer, nth, options):
    """A node leaves whose own sockets are all closed; clients of the others write to each other meanwhile."""
    gone, *stay = peer.NODES
    loads = []
    for node in stay:
        listed = f"{peer.directory}/{node}"
        with open(listed, "w", encoding="utf-8") as file:
            for n in range(options.sessions // len(stay)):
                file.write("l%d-%s-%d %s:%d\n" % (nth, node, n, *peer.address(node)))
        load = [options.load, "--accounts", listed, "--domain", peer.DOMAIN, "--password", peer.PASSWORD, "--rate", "500", "--steady", "60"]
        loads.append(await asyncio.create_subprocess_exec(*load, stdout=asyncio.subprocess.PIPE))
    for load in loads:
        assert b"sessions held" in await load.stdout.readline()
    await asyncio.sleep(15)
    pids = {node: peer.pids(node)[0] for node in peer.NODES}
    before = {node: resident(pid) for node, pid in pids.items()}
    most, began = dict(before), time.monotonic()
    leaving = asyncio.create_task(peer.leave(gone))
    while not leaving.done():
        await asyncio.sleep(0.05)
        for node, pid in pids.items():
            most[node] = max(most[node], resident(pid))
    found = {"sessions": options.sessions / len(peer.NODES), "left after, s": time.monotonic() - began}
    found["MiB before, it"], found["MiB at most, it"] = before[gone], most[gone]
    found["MiB before, others"], found["MiB at most, others"] = (max(memory[node] for node in stay) for memory in (before, most))
    for load in loads:
        out, _ = await load.communicate()
        assert load.returncode == 0, f"a message was lost, doubled or out of order: {out.decode()}"
        for name, millis in read(out.decode(), []).items():
            if name.endswith("ms"):
                found[name] = max(millis, found.get(name, 0))
    await peer.start(gone)
    assert await settled(peer), "the nodes are not one server again"
    return found


def resident(pid):
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096 / 2**20
    except (OSError, IndexError):
        return 0.0


async def gather(peer, nth):
    """Who hear of each other."""
    book = Book(list(peer.NODES))
    names = accounts("k", peer, nth)
    devices = [Device(peer, book, account, "r") for account in names]
    book.devices = devices
    for device in devices:
        device.start()
    await ready(devices)
    for n, device in enumerate(devices):
        for by in (1, 7, -1, -7):
            device.subscribe(f"{names[(n + by) % len(names)]}@{peer.DOMAIN}")
    await asyncio.sleep(5)
    return book, devices


async def ready(devices):
    for device in devices:
        await asyncio.wait_for(device.ready.wait(), 60)


def peers(options):
    ours = {"log": "error", "options": ["--any-account", Peer.PASSWORD]}
    known = {
        "one node": lambda: One(options.binary, **ours),
        "nodes": lambda: Nodes(options.binary, **ours),
        "nodes on PostgreSQL": lambda: Nodes(options.binary, engine="postgres", **ours),
        "ejabberd": lambda: Ejabberd(is_direct=True),
    }
    names = options.peers.split(",")
    if "ejabberd" in names and not shutil.which("ejabberdctl"):
        print("ejabberd is not installed, and left out")
        names.remove("ejabberd")
    return {name: known[name] for name in names}


async def measure(name, make, names, nth, found, options):
    """All of it on nodes that have just begun."""
    peer = make()
    directory = tempfile.mkdtemp(prefix="cluster-")
    devices, is_well = [], True
    try:
        await peer.prepare(directory, [account for prefix in CHOICE for account in accounts(prefix, peer, nth)])
        await asyncio.gather(*(peer.start(node) for node in peer.NODES))
        assert await settled(peer), "the nodes are not one server"
        for what in names:
            if what != "kill":
                try:
                    figures = await (leave(peer, nth, options) if what == "leave" else work(peer, what, nth, options))
                except AssertionError as error:
                    print(f"{name}, {what}: {error}", flush=True)
                    is_well = False
                    continue
                found[what, name].append(figures)
                print(json.dumps({"peer": name, "work": what, "round": nth, **figures}, ensure_ascii=False), flush=True)
            elif len(peer.NODES) > 1:
                crowd = await gather(peer, nth)
                devices = crowd[1]
                for time_ in range(options.kills):
                    figures = await kill(peer, time_, crowd)
                    found[what, name].append(figures)
                    print(json.dumps({"peer": name, "work": what, **figures}, ensure_ascii=False), flush=True)
    finally:
        await asyncio.gather(*(device.stop() for device in devices), return_exceptions=True)
        await peer.close()
    if is_well:
        shutil.rmtree(directory)


def tell(found):
    for (what, name), rounds in sorted(found.items()):
        print(f"\n{what}, {name}: median of {len(rounds)}, least, most")
        for figure in dict.fromkeys(figure for one in rounds for figure in one):
            values = [one[figure] for one in rounds if figure in one]
            print(f"  {figure:32} {statistics.median(values):10.2f} {min(values):10.2f} {max(values):10.2f}")


async def main(options):
    found = collections.defaultdict(list)
    names = options.work.split(",")
    for nth in range(options.rounds):
        for name, make in peers(options).items():
            await measure(name, make, names, nth, found, options)
    tell(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--binary", default="target/release/examples/server")
    parser.add_argument("--load", default="target/release/examples/load")
    parser.add_argument("--peers", default="one node,nodes,ejabberd")
    parser.add_argument("--work", default=",".join(WORK))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=30000, help="for `leave`: as many files may be open in two processes")
    parser.add_argument("--kills", type=int, default=9)
    asyncio.run(main(parser.parse_args()))
    sys.exit()
