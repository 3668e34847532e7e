"""The example server, several of it: on a Redis of its own and the PostgreSQL of `.ci/postgres`, each node behind proxies that can be cut."""

import asyncio
import os
import re
import shutil
import signal
import sys

from peer import Peer, Process, free_port, listens

HERE = os.path.dirname(os.path.abspath(__file__))
SLOTS = 1024


class Ours(Peer):
    # The default of `Cluster::leases`: ttl and margin.
    TTL = 3.5

    def __init__(self, binary, engine="redis", log="info", options=()):
        self.binary, self.engine, self.log_level, self.options = binary, engine, log, options
        self.database = os.environ["XMPP_TEST_POSTGRES"]
        self.ports, self.nodes, self.proxies, self.cuts = {}, {}, {}, {}
        self.redis = None
        self.forced = []

    async def prepare(self, directory, accounts):
        self.directory = directory
        os.makedirs(self.path("redis"))
        self.redis_port = free_port()
        command = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", self.path("redis")]
        command += ["--save", "", "--appendonly", "yes"]
        self.redis = Process("redis", command, self.path("redis.log"))
        await self.redis.start()
        assert await listens(self.redis_port), "Redis does not start"
        await self._make(accounts)

    async def _make(self, accounts):
        """By the server alone, before there is a cluster."""
        listed, port = self.path("accounts"), free_port()
        with open(listed, "w", encoding="utf-8") as file:
            file.writelines(f"{account}@{self.DOMAIN} {self.PASSWORD}\n" for account in accounts)
        alone = [self.binary, "--data", self.database, "--accounts", listed, "--listen", f"127.0.0.1:{port}"]
        alone += ["--domain", self.DOMAIN, "--allow-plaintext", "--mechanisms", "PLAIN"]
        process = Process("accounts", alone, self.path("accounts.log"))
        await process.start()
        assert await listens(port, 300, process.is_alive), "accounts are not made: see accounts.log"
        await process.end(signal.SIGTERM)

    def path(self, name):
        return os.path.join(self.directory, name)

    async def start(self, node):
        if node not in self.nodes:
            await self._set_up(node)
        await self.nodes[node].start()
        assert await listens(self.ports[node], 120), f"{node} does not come up: see {node}.log"

    async def _set_up(self, node):
        self.ports[node] = free_port()
        targets = {"redis": self.redis_port, "data": int(re.search(r":(\d+)/", self.database).group(1))}
        ports = {what: free_port() for what in targets}
        program = os.path.join(HERE, "proxy.py")
        self.proxies[node] = {
            what: Process(f"{what} of {node}", [sys.executable, program, str(ports[what]), str(target)], self.path("proxies.log"))
            for what, target in targets.items()
        }
        for what, proxy in self.proxies[node].items():
            proxy.port = ports[what]
            await proxy.start()
            assert await listens(proxy.port, alive=proxy.is_alive)
        command = [self.binary, *self.command(node, ports)]
        self.nodes[node] = Process(node, command, self.path(f"{node}.log"))

    def command(self, node, ports):
        data = re.sub(r":(\d+)/", f":{ports['data']}/", self.database)
        command = ["--cluster", f"redis://127.0.0.1:{ports['redis']}", "--engine", self.engine, "--node", node]
        command += ["--data", data, "--listen", f"127.0.0.1:{self.ports[node]}", "--domain", self.DOMAIN]
        command += ["--allow-plaintext", "--no-limits", "--mechanisms", "PLAIN", "--log", self.log_level]
        return command + list(self.options)

    async def leave(self, node):
        if not await self.nodes[node].end(signal.SIGTERM, 60):
            self.forced.append(node)

    async def kill(self, node):
        await self.nodes[node].end()

    def pause(self, node):
        self.nodes[node].send(signal.SIGSTOP)

    def resume(self, node):
        self.nodes[node].send(signal.SIGCONT)

    async def cut(self, node, is_silent, is_whole):
        # With leases in the database, that alone is the engine.
        engine = "redis" if self.engine == "redis" else "data"
        proxies = [proxy for what, proxy in self.proxies[node].items() if is_whole or what == engine]
        self.cuts[node] = (is_silent, proxies)
        for proxy in proxies:
            if is_silent:
                proxy.send(signal.SIGSTOP)
            else:
                await proxy.end()

    async def mend(self, node):
        is_silent, proxies = self.cuts.pop(node)
        for proxy in proxies:
            if is_silent:
                proxy.send(signal.SIGCONT)
            else:
                await proxy.start()
                await listens(proxy.port)

    async def restart_engine(self, keep):
        """Redis, which has the posts in any case; and the database, where that is the engine."""
        await self.redis.end()
        if not keep:
            shutil.rmtree(self.path("redis"))
            os.makedirs(self.path("redis"))
        if self.engine == "postgres":
            if keep:
                await run("bash", "-c", os.environ["XMPP_TEST_POSTGRES_RESTART"])
            else:
                await self._sql("TRUNCATE xmpp_session.xmpp_cluster CASCADE")
        await self.redis.start()
        assert await listens(self.redis_port), "Redis does not start again"

    async def is_settled(self):
        record = await self._record()
        if record is None:
            return False
        members, places = record
        wanted = sorted(node for node, process in self.nodes.items() if process.wanted)
        owned = [sum(owner == node for owner, _ in places) for node in wanted]
        return sorted(members) == wanted and not any(to for _, to in places) and max(owned) - min(owned) <= 1

    def ends(self):
        return {node: len(process.ends) for node, process in self.nodes.items()}

    async def homes(self, accounts):
        record = await self._record()
        if record is None:
            return dict.fromkeys(accounts)
        return {account: record[1][slot(f"{account}@{self.DOMAIN}")][0] for account in accounts}

    async def _record(self):
        """Names of the members; owner of each slot, and to whom it moves."""
        try:
            if self.engine == "postgres":
                found = bytes.fromhex(await self._sql("SELECT encode(record, 'hex') FROM xmpp_session.xmpp_cluster"))
            else:
                found = await self._hget("xmpp", "record")
        except (OSError, ValueError, AssertionError, asyncio.IncompleteReadError):
            return None
        return read_record(found) if found else None

    async def _hget(self, key, field):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.redis_port)
        try:
            writer.write(f"HGET {key} {field}\r\n".encode())
            length = int((await reader.readline())[1:])
            return await reader.readexactly(length) if length > 0 else None
        finally:
            writer.close()

    async def _sql(self, text):
        return await run("psql", self.database, "-Atqc", text)

    def address(self, node):
        return "127.0.0.1", self.ports[node]

    def pids(self, node):
        return [self.nodes[node].pid] if self.nodes[node].is_alive() else []

    async def close(self):
        for process in self.nodes.values():
            await process.end()
        for proxies in self.proxies.values():
            for proxy in proxies.values():
                await proxy.end()
        if self.redis:
            await self.redis.end()


class Alone(Ours):
    """One node without a cluster, to try the script on."""

    NODES = ["one"]
    KINDS = ("rolling",)

    async def _set_up(self, node):
        self.ports[node], self.proxies[node] = free_port(), {}
        command = [self.binary, "--data", self.database, "--listen", f"127.0.0.1:{self.ports[node]}", "--domain", self.DOMAIN]
        command += ["--allow-plaintext", "--no-limits", "--mechanisms", "PLAIN", "--log", self.log_level]
        self.nodes[node] = Process(node, command, self.path(f"{node}.log"))

    async def is_settled(self):
        return True

    async def homes(self, accounts):
        return dict.fromkeys(accounts, "one")


async def run(*command):
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode == 0, f"{command[0]}: {error.decode()}"
    return out.decode().strip()


def slot(bare):
    """The slot of an account: FNV-1a, folded (`cluster/view`)."""
    value = 0x811C9DC5
    for byte in bare.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (value >> 16 ^ value) % (1 << 16) % SLOTS


class Reader:
    """What `packed` has written."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self):
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text(self):
        length = self.number()
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def view(self):
        return self.number(), self.number()


def read_record(data):
    """A `Record` of version 1 (`cluster/codec`): names of members, owner and goal of each slot."""
    reader = Reader(data)
    assert reader.number() == 1, "a record of another version"
    reader.view(), reader.text()
    names = {}
    for _ in range(reader.number()):
        incarnation = reader.number()
        names[incarnation] = reader.text()
    nodes = [None] + [reader.number() for _ in range(reader.number())]
    places = []
    for _ in range(reader.number()):
        owner = nodes[reader.number()]
        reader.view(), reader.view()
        # The last bit: whether its last move was refused.
        to = nodes[reader.number() >> 1]
        if to is not None:
            reader.view()
        places.append((names.get(owner, owner), to and names.get(to, to)))
    return list(names.values()), places
