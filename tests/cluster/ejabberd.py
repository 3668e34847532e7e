"""ejabberd of Debian, as several nodes joined by Mnesia, with accounts, rosters and offline messages in the PostgreSQL of `.ci/postgres`.

What connects two nodes, and a node with the database, goes through proxies that can be cut. Nodes find each other by a module
in place of `epmd`, so that nothing of this leaves the directory."""

import asyncio
import os
import re
import sys

from peer import Peer, Process, free_port, listens

HERE = os.path.dirname(os.path.abspath(__file__))

CONFIG = """
hosts: [{domain}]
loglevel: warning
log_rotate_count: 0
acme: {{auto: false}}
auth_method: sql
auth_password_format: plain
default_db: sql
sql_type: pgsql
sql_server: 127.0.0.1
sql_port: {data}
sql_database: {database}
sql_username: {user}
sql_password: ""
sql_pool_size: 10
listen:
  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_c2s, access: all, shaper: none, backlog: 4096, max_stanza_size: 262144}}
shaper_rules:
  max_user_sessions: 10
  max_user_offline_messages: 100000
modules:
  mod_carboncopy: {{}}
  mod_client_state: {{}}
  mod_disco: {{}}
  mod_offline: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
  mod_stream_mgmt: {{resume_timeout: 300, ack_timeout: 300}}
"""

# Where each node is, as seen from this one: the environment says `DIST=one:PORT,two:PORT`, and `LISTEN=PORT`.
NAMES = """
-module(names).
-export([start_link/0, register_node/2, register_node/3, port_please/2, port_please/3, listen_port_please/2, address_please/3, names/1]).
start_link() -> ignore.
register_node(_, _) -> {ok, 1 + rand:uniform(3)}.
register_node(_, _, _) -> {ok, 4 + erlang:system_time(microsecond) rem 1000000}.
listen_port_please(_, _) -> {ok, list_to_integer(os:getenv("LISTEN", "0"))}.
address_please(_, _, _) -> {ok, {127, 0, 0, 1}}.
port_please(Name, Host, _) -> port_please(Name, Host).
port_please(Name, _) ->
    All = [string:split(One, ":") || One <- string:lexemes(os:getenv("DIST", ""), ",")],
    case [Port || [Node, Port] <- All, Node =:= Name] of
        [Port] -> {port, list_to_integer(Port), 5};
        [] -> noport
    end.
names(_) -> {error, address}.
"""


class Ejabberd(Peer):
    # It has no leases, and its sessions live where their clients connect.
    KINDS = ("kill", "stop", "cut", "rolling")

    def __init__(self, vm="", is_direct=False):
        """`is_direct`: without proxies, to be measured."""
        self.server = os.environ["XMPP_TEST_POSTGRES"]
        self.user, self.data = re.search(r"//([^@]+)@.*:(\d+)/", self.server).groups()
        self.vm, self.is_direct = vm.split(), is_direct
        self.nodes, self.ports, self.listening, self.proxies, self.cuts = {}, {}, {}, {}, {}
        self.joined, self.forced = set(), []
        # One joins after the other.
        self.turns = asyncio.Lock()

    def path(self, *names):
        return os.path.join(self.directory, *names)

    async def prepare(self, directory, accounts):
        self.directory = directory
        self.database = "ejabberd_" + re.sub(r"\W", "_", os.path.basename(directory).lower())
        await run("psql", self.server, "-qc", f"CREATE DATABASE {self.database}")
        url = self.server.rsplit("/", 1)[0] + "/" + self.database
        await run("psql", url, "-qv", "ON_ERROR_STOP=1", "-f", "/usr/share/ejabberd/sql/pg.sql")
        values = self.path("accounts")
        with open(values, "w", encoding="utf-8") as file:
            file.writelines(f"{account}\t{self.PASSWORD}\n" for account in accounts)
        await run("psql", url, "-qc", f"\\copy users (username, password) FROM '{values}'")
        with open(self.path("names.erl"), "w", encoding="utf-8") as file:
            file.write(NAMES)
        await run("erlc", "-o", directory, self.path("names.erl"))
        for node in self.NODES:
            self.listening[node], self.ports[node] = free_port(), free_port()
        for node in [] if self.is_direct else self.NODES:
            targets = {other: self.listening[other] for other in self.NODES if other != node}
            targets["data"] = int(self.data)
            for what, target in targets.items():
                port = free_port()
                program = [sys.executable, os.path.join(HERE, "proxy.py"), str(port), str(target)]
                proxy = Process(f"{node} to {what}", program, self.path("proxies.log"))
                proxy.port = port
                await proxy.start()
                assert await listens(port, alive=proxy.is_alive)
                self.proxies[node, what] = proxy

    def _erl(self, name, ports):
        """A command, and its environment."""
        dist = ",".join(f"{node}:{port}" for node, port in ports.items())
        common = ["erl", "-noinput", "-sname", f"{name}@localhost", "-setcookie", "nodes", "-pa", self.directory]
        common += ["-start_epmd", "false", "-epmd_module", "names", "-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
        home = self.path(name)
        os.makedirs(home, exist_ok=True)
        return common, {"HOME": home, "ERL_LIBS": "/usr/lib/x86_64-linux-gnu", "DIST": dist, "ERL_CRASH_DUMP": "/dev/null"}

    async def start(self, node):
        if node not in self.nodes:
            self._set_up(node)
        async with self.turns:
            await self.nodes[node].start()
            assert await listens(self.ports[node], 300), f"{node} does not come up: see {node}.log"
            if node not in self.joined and self.joined:
                await self._call(node, f"ejabberd_cluster:join('{min(self.joined)}@localhost')", "ok")
                assert await listens(self.ports[node], 300), f"{node} does not come up again: see {node}.log"
            self.joined.add(node)

    def _set_up(self, node):
        ports = self.listening | {"data": self.data}
        ports |= {other: proxy.port for (of, other), proxy in self.proxies.items() if of == node}
        config, spool = self.path(f"{node}.yml"), self.path(f"{node}.mnesia")
        settings = {"domain": self.DOMAIN, "database": self.database, "user": self.user}
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(port=self.ports[node], data=ports["data"], **settings))
        command, environment = self._erl(node, ports)
        environment |= {"LISTEN": str(self.listening[node]), "ERL_MAX_ETS_TABLES": "1400", "ERL_MAX_PORTS": "262144"}
        environment |= {"EJABBERD_CONFIG_PATH": config, "EJABBERD_LOG_PATH": self.path(f"{node}.log")}
        # As Debian starts it.
        command += ["+K", "true", "+P", "1000000", *self.vm, "-mnesia", "dir", f'"{spool}"', "-s", "ejabberd"]
        self.nodes[node] = Process(node, command, self.path(f"{node}.out"), environment)

    async def _call(self, node, expression, wanted=None):
        """What an expression says at a node."""
        command, environment = self._erl("control", self.listening)
        call = (
            f"{{ok, T, _}} = erl_scan:string({quoted(expression + '.')}), {{ok, E}} = erl_parse:parse_exprs(T), "
            f"R = rpc:call('{node}@localhost', erl_eval, exprs, [E, []], 90000), "
            "io:format(\"~0p\", [case R of {value, V, _} -> V; Other -> Other end]), halt(0)."
        )
        said = await run(*command, "-hidden", "-dist_listen", "false", "-eval", call, environment=environment)
        assert wanted is None or said == wanted, f"{node}: {expression}: {said}"
        return said

    async def leave(self, node):
        if not await self.nodes[node].end(15, 60):
            self.forced.append(node)

    async def kill(self, node):
        await self.nodes[node].end()

    def pause(self, node):
        self.nodes[node].send(19)

    def resume(self, node):
        self.nodes[node].send(18)

    async def cut(self, node, is_silent, is_whole):
        """From the other nodes; `is_whole`: and from the database."""
        ends = [(pair, proxy) for pair, proxy in self.proxies.items() if node in pair]
        proxies = [proxy for (_, to), proxy in ends if is_whole or to != "data"]
        self.cuts[node] = (is_silent, proxies)
        for proxy in proxies:
            if is_silent:
                proxy.send(19)
            else:
                await proxy.end()

    async def mend(self, node):
        is_silent, proxies = self.cuts.pop(node)
        for proxy in proxies:
            if is_silent:
                proxy.send(18)
            else:
                await proxy.start()
                await listens(proxy.port)

    async def is_settled(self):
        wanted = sorted(node for node, process in self.nodes.items() if process.wanted)
        for node in wanted:
            said = await self._call(node, "lists:sort(mnesia:system_info(running_db_nodes))")
            if re.findall(r"(\w+)@", said) != wanted:
                return False
        return True

    def address(self, node):
        return "127.0.0.1", self.ports[node]

    def pids(self, node):
        return [self.nodes[node].pid] if self.nodes[node].is_alive() else []

    async def close(self):
        for process in [*self.nodes.values(), *self.proxies.values()]:
            if process.child:
                await process.end()


async def run(*command, environment=None):
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    out, error = await process.communicate()
    assert process.returncode == 0, f"{command[0]}: {out.decode()} {error.decode()}"
    return out.decode().strip()


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
