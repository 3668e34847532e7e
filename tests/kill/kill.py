#!/usr/bin/env python3
"""Kills the example server with SIGKILL under load, again and again, and looks at what is left.

    cargo build --features tokio,sqlite --example server
    tests/kill/kill.py target/debug/examples/server [--rounds N] [--seed N]

Clients edit rosters, subscribe to each other and write to accounts that are away. After each kill:

  the file is whole     SQLite finds nothing wrong with a copy of it, and the server starts with it
  nothing is lost       what was acknowledged is there: a roster change by its result or its push, a
                        message by the answer to a ping that was sent behind it
  nothing is half done  both ends of a subscription agree; whoever waits for an answer is waited for
                        at the other end; a message is there once and whole

What was asked for and not acknowledged may be there or not. Exit status 1 at the first difference.
Plain sockets and the Python library alone. SIGKILL leaves the caches of the operating system: the
loss of power is not tried here.
"""

import argparse
import base64
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET

DOMAIN = "localhost"
PASSWORD = "secret"
USERS = [f"u{n}" for n in range(6)]
AWAY = [f"away{n}" for n in range(3)]
CLIENT = "{jabber:client}"
ROSTER = "{jabber:iq:roster}"
HEADER = (
    f"<stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)


class Gone(Exception):
    """The server is dead."""


class Client:
    """One stream, read and written by one thread."""

    def __init__(self, port, node):
        self.node = node
        self.ids = 0
        self.other = []
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError as error:
            raise Gone from error
        self.restart()
        token = base64.b64encode(f"\0{node}\0{PASSWORD}".encode()).decode()
        self.write(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{token}</auth>")
        answer = self.read()
        if not answer.tag.endswith("}success"):
            raise AssertionError(f"{node} cannot log in: {ET.tostring(answer)}")
        self.restart()
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind>"
        self.ask("set", bind)

    def restart(self):
        self.parser = ET.XMLPullParser(("start", "end"))
        self.depth = 0
        self.write(HEADER)
        self.read()

    def write(self, text):
        try:
            self.socket.sendall(text.encode())
        except OSError as error:
            raise Gone from error

    def read(self):
        """The next first-level element."""
        while True:
            for event, element in self.parser.read_events():
                self.depth += 1 if event == "start" else -1
                if event == "end" and self.depth == 1:
                    return element
                if event == "end" and self.depth == 0:
                    raise Gone
            try:
                data = self.socket.recv(65536)
            except TimeoutError as error:
                raise AssertionError(f"{self.node} waits for an answer that does not come") from error
            except OSError as error:
                raise Gone from error
            if not data:
                raise Gone
            self.parser.feed(data)

    def ask(self, kind, payload):
        """The answer to an iq; what comes before it goes to `other`."""
        self.ids += 1
        name = f"i{self.ids}"
        self.write(f"<iq type='{kind}' id='{name}'>{payload}</iq>")
        while True:
            element = self.read()
            if element.tag == CLIENT + "iq" and element.get("id") == name:
                return element
            self.other.append(element)

    def ping(self):
        """Returns when everything that was sent before is dealt with."""
        self.ids += 1
        name = f"i{self.ids}"
        self.write(f"<iq type='get' id='{name}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>")
        while True:
            element = self.read()
            if element.tag == CLIENT + "iq" and element.get("id") == name:
                return
            self.other.append(element)

    def roster(self):
        """Version and items."""
        query = self.ask("get", "<query xmlns='jabber:iq:roster'/>").find(ROSTER + "query")
        return int(query.get("ver").split("-")[0]), {i.get("jid"): item(i) for i in query}

    def close(self):
        self.socket.close()


def item(element):
    names = ("name", "subscription", "ask", "approved")
    return {name: element.get(name) for name in names if element.get(name)}


class User(threading.Thread):
    """A user at work: one request at a time, noting what was acknowledged."""

    def __init__(self, port, node, seed, state):
        super().__init__(daemon=True)
        self.port, self.node, self.state = port, node, state
        self.random = random.Random(seed)
        self.failure = None

    def run(self):
        try:
            client = Client(self.port, self.node)
            version, items = client.roster()
            self.note(version, items)
            client.write("<presence/>")
            while True:
                self.act(client)
                self.hear(client)
        except Gone:
            pass
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error

    def note(self, version, items):
        self.state["version"], self.state["items"] = version, items

    def act(self, client):
        chance = self.random.random()
        peer = self.random.choice([u for u in USERS if u != self.node])
        if chance < 0.35:
            self.state["edit"] += 1
            edit, jid = self.state["edit"], f"c{self.random.randrange(8)}@remote.example"
            self.state["asked"][jid] = edit
            query = f"<query xmlns='jabber:iq:roster'><item jid='{jid}' name='{edit}'/></query>"
            answer = client.ask("set", query)
            assert answer.get("type") == "result", ET.tostring(answer)
            self.state["acked"][jid] = edit
        elif chance < 0.40:
            query = f"<query xmlns='jabber:iq:roster'><item jid='{peer}@{DOMAIN}' subscription='remove'/></query>"
            client.ask("set", query)
        elif chance < 0.75:
            kind = self.random.choice(
                ["subscribe"] * 3 + ["subscribed"] * 3 + ["unsubscribe", "unsubscribed"]
            )
            client.write(f"<presence to='{peer}@{DOMAIN}' type='{kind}'/>")
            client.ping()
        else:
            away, sent = self.random.choice(AWAY), []
            for _ in range(self.random.randrange(1, 4)):
                self.state["message"] += 1
                body = f"{self.node} {self.state['message']}"
                sent.append((away, body))
                client.write(f"<message to='{away}@{DOMAIN}' type='chat'><body>{body}</body></message>")
            client.ping()
            bounced = [e for e in client.other if e.tag == CLIENT + "message" and e.get("type") == "error"]
            assert not bounced, ET.tostring(bounced[0])
            self.state["messages"] += sent
        self.state["acts"] += 1

    def hear(self, client):
        """Pushes are acknowledgements."""
        for element in client.other:
            query = element.find(ROSTER + "query")
            if query is None or element.get("type") != "set":
                continue
            version = int(query.get("ver").split("-")[0])
            assert version > self.state["version"], "pushes out of order"
            for pushed in query:
                if pushed.get("subscription") == "remove":
                    self.state["items"].pop(pushed.get("jid"), None)
                else:
                    self.state["items"][pushed.get("jid")] = item(pushed)
            self.state["version"] = version
        client.other.clear()


class Server:
    """The process."""

    def __init__(self, binary, data, log, first):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [binary, "--listen", f"127.0.0.1:{self.port}", "--domain", DOMAIN]
        command += ["--allow-plaintext", "--no-limits", "--mechanisms", "PLAIN", "--data", data]
        if first:
            for node in USERS + AWAY:
                command += ["--account", f"{node}@{DOMAIN}:{PASSWORD}"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(600):
            assert self.process.poll() is None, "the server does not start with what is left"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server does not listen")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def check_file(data, scratch):
    """SQLite's own opinion, on a copy: the server shall do its recovery itself."""
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(data + suffix):
            shutil.copy(data + suffix, os.path.join(scratch, "copy" + suffix))
    copy = sqlite3.connect(os.path.join(scratch, "copy"))
    verdict = copy.execute("PRAGMA integrity_check").fetchall()
    copy.close()
    assert verdict == [("ok",)], verdict


def check_roster(node, state, version, items):
    """What a user was told is there; what it asked for last may be there too."""
    assert version >= state["version"], f"{node} was told of version {state['version']}, not {version}"
    if version == state["version"]:
        assert items == state["items"], f"{node}: {items} is not {state['items']}"
    for jid, edit in state["acked"].items():
        name = int(items[jid]["name"])
        assert edit <= name <= state["asked"][jid], f"{node} {jid}: {name}, acknowledged {edit}"


def check_pairs(rosters, requests):
    """Both ends of every subscription."""
    for one in USERS:
        for other in USERS:
            mine = rosters[one].get(f"{other}@{DOMAIN}", {})
            theirs = rosters[other].get(f"{one}@{DOMAIN}", {})
            sees = mine.get("subscription") in ("to", "both")
            seen = theirs.get("subscription") in ("from", "both")
            assert sees == seen, f"{one} {mine} and {other} {theirs}"
            if mine.get("ask"):
                assert one in requests[other], f"{one} asks {other}, who does not know"
            if one in requests[other]:
                assert not seen, f"{other} has the request of {one}, who sees it"


def check(server, states, messages):
    """Everything that can be asked of a server that was started again. Returns figures."""
    rosters, requests = {}, {}
    for node in USERS:
        client = Client(server.port, node)
        version, rosters[node] = client.roster()
        client.write("<presence/>")
        client.ping()
        requests[node] = {
            element.get("from").split("@")[0]
            for element in client.other
            if element.tag == CLIENT + "presence" and element.get("type") == "subscribe"
        }
        check_roster(node, states[node], version, rosters[node])
        states[node]["version"], states[node]["items"] = version, rosters[node]
        for jid, edit in states[node]["acked"].items():
            states[node]["acked"][jid] = int(rosters[node][jid]["name"])
        client.close()
    check_pairs(rosters, requests)
    found = 0
    for node in AWAY:
        client = Client(server.port, node)
        client.write("<presence/>")
        client.ping()
        got = [e.find(CLIENT + "body").text for e in client.other if e.tag == CLIENT + "message"]
        assert len(got) == len(set(got)), f"{node} has a message twice"
        for user in USERS:
            numbers = [int(body.split()[1]) for body in got if body.split()[0] == user]
            assert numbers == sorted(numbers), f"{node} has messages of {user} out of order"
        lost = [body for away, body in messages if away == node and body not in got]
        assert not lost, f"{node} has lost {lost}"
        found += len(got)
        client.write("<presence type='unavailable'/>")
        client.ping()
        client.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed {seed}, {options.rounds} rounds", flush=True)
    scratch = tempfile.mkdtemp(prefix="kill-")
    data = os.path.join(scratch, "data.sqlite")
    states = {
        node: {"version": 0, "items": {}, "asked": {}, "acked": {}, "edit": 0, "message": 0, "acts": 0, "messages": []}
        for node in USERS
    }
    totals = {"acts": 0, "acknowledged": 0, "found": 0}
    with open(os.path.join(scratch, "log"), "w", encoding="utf-8") as log:
        server = Server(options.binary, data, log, True)
        for number in range(options.rounds):
            users = [User(server.port, node, chance.random(), states[node]) for node in USERS]
            for user in users:
                user.start()
            # Logging in takes its time; a kill amid that is of use as well.
            time.sleep(chance.uniform(0.05, 2.5))
            server.kill()
            for user in users:
                user.join(60)
                if user.failure:
                    raise user.failure
            check_file(data, scratch)
            server = Server(options.binary, data, log, False)
            messages = [sent for node in USERS for sent in states[node]["messages"]]
            totals["found"] += check(server, states, messages)
            totals["acknowledged"] += len(messages)
            totals["acts"] += sum(states[node]["acts"] for node in USERS)
            for node in USERS:
                states[node]["acts"], states[node]["messages"] = 0, []
            if number % 10 == 9:
                print(f"{number + 1} rounds: {totals}", flush=True)
        server.kill()
    print(f"{options.rounds} kills, nothing lost, nothing half done: {totals}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        sys.exit(1)
