"""Clients whose connection is cut again and again: does every message arrive once and in order?

Usage: run.py --port PORT [--cuts 20] [--seed 1] [slixmpp] [xmppjs]

A sender with a connection of its own writes numbered messages to a receiver behind the proxy, until the
proxy has cut as often as it should. The server has to allow plain text, which slixmpp
uses here, and to know user70 … user73, each with the password "secret-of-NAME". xmpp.js insists on TLS:
NODE_EXTRA_CA_CERTS names the certificate."""
import argparse
import asyncio
import json
import logging
import pathlib
import random
import subprocess
import sys
import time

from slixmpp import ClientXMPP

from proxy import Proxy

HERE = pathlib.Path(__file__).parent
PAUSE = 0.004  # between messages
AHEAD = 25  # so many may be under way: a backlog larger than what passes between two cuts would never shrink
PATIENCE = 30  # for what is missing at the end
# Bytes of client and server. xmpp.js 0.14 does not survive a cut during SASL: the handler of the login that
# was cut answers the next challenge as well, and the login fails. Hence it is cut after logins only.
LOGIN_OF_XMPPJS = 2800, 4500
logging.basicConfig(level=logging.CRITICAL)


def plain(user, resource):
    client = ClientXMPP(f"{user}@localhost/{resource}", f"secret-of-{user}")
    client.plugin["feature_mechanisms"].unencrypted_plain = True
    client.plugin["feature_mechanisms"].unencrypted_scram = True
    client.enable_starttls = client.enable_direct_tls = False
    client.enable_plaintext = True
    return client


class Record:
    """What the receiver tells, and what the sender hears of it. What other runs have left is none of it."""

    def __init__(self, run):
        self.run, self.got, self.answered, self.answers = run, [], [], []
        self.highest, self.counts, self.up = 0, {}, asyncio.Event()

    def tell(self, what, body=None):
        if body is not None:
            run, number, *_ = body.split()
            if run == self.run:
                {"message": self.got, "answered": self.answered, "answer": self.answers}[what].append(int(number))
                if what == "message":
                    self.highest = max(self.highest, int(number))
        else:
            self.counts[what] = self.counts.get(what, 0) + 1
            if what == "session":
                self.up.set()


async def slixmpp_receiver(port, user, record):
    client = plain(user, "cut")
    client.register_plugin("xep_0198")
    stopped = False

    def session(_):
        record.tell("session")
        client.send_presence()

    def message(m):
        record.tell("message", m["body"])
        record.tell("answered", m["body"])
        client.send_message(mto=m["from"], mtype="chat", mbody=" ".join(m["body"].split()[:2]))

    def disconnected(_):
        if not stopped:
            asyncio.get_running_loop().call_later(0.01, client.connect, "127.0.0.1", port)

    client.add_event_handler("session_start", session)
    client.add_event_handler("session_resumed", lambda _: record.tell("resumed"))
    client.add_event_handler("sm_failed", lambda _: record.tell("failed"))
    client.add_event_handler("message", message)
    client.add_event_handler("disconnected", disconnected)
    client.connect("127.0.0.1", port)

    async def stop():
        nonlocal stopped
        stopped = True
        client.abort()

    return stop


async def xmppjs_receiver(port, user, record):
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "xmppjs.js"), str(port), user, f"secret-of-{user}",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )

    async def read():
        async for line in process.stdout:
            what, *body = json.loads(line)
            record.tell(what, *(body if what == "message" else []))

    task = asyncio.create_task(read())

    async def stop():
        process.stdin.close()
        await process.wait()
        await task

    return stop


async def play(receiver, port, cuts, seed, users, spared):
    """Returns what went wrong, and a line of numbers."""
    sender = plain(users[0], "steady")
    up = asyncio.Event()
    sender.add_event_handler("session_start", lambda _: up.set())
    run = f"run-{time.time_ns()}"
    record = Record(run)
    sender.add_event_handler("message", lambda m: record.tell("answer", m["body"]))
    sender.connect("127.0.0.1", port)
    await asyncio.wait_for(up.wait(), PATIENCE)
    proxy, rng = Proxy(port, cuts, seed, spared), random.Random(seed)
    began = time.monotonic()
    stop = await receiver(await proxy.start(), users[1], record)
    sent = after = 0
    wrong = []
    try:
        await asyncio.wait_for(record.up.wait(), PATIENCE)
        last_cut, seen = time.monotonic(), 0
        while after < 20:
            sender.send_raw(
                f"<message to='{users[1]}@localhost/cut' type='chat'><body>{run} {sent} {'ü' * rng.randrange(200)}</body></message>"
            )
            sent += 1
            after += proxy.finished.is_set()
            if proxy.done != seen:
                last_cut, seen = time.monotonic(), proxy.done
            if time.monotonic() - last_cut > PATIENCE:
                wrong.append(f"no cut for {PATIENCE} s: the client does not come back")
                break
            await asyncio.sleep(PAUSE)
            patient = time.monotonic() + 1
            while sent > AHEAD + record.highest and time.monotonic() < patient:
                await asyncio.sleep(PAUSE)
        deadline = time.monotonic() + PATIENCE
        while sent - 1 not in record.got[-50:] and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # for what might come twice
    except asyncio.TimeoutError:
        wrong.append("the receiver never got a session")
    seconds = time.monotonic() - began
    await stop()
    sender.abort()
    c = record.counts
    for name, got in ("messages", record.got), ("answers", record.answers):
        doubled = len(got) - len(set(got))
        if doubled:
            wrong.append(f"{doubled} {name} doubled: {sorted(n for n in set(got) if got.count(n) > 1)[:10]}")
        elif got != sorted(got):
            wrong.append(f"order of {name}: {[(a, b) for a, b in zip(got, got[1:]) if a > b][:10]}")
    got = record.got
    lost = sorted(set(range(sent)) - set(got))
    missing = sorted(set(record.answered) - set(record.answers))
    # A session that was not resumed may take what was under way with it, and no more.
    excused = AHEAD * (max(c.get("session", 0) - 1, 0) + c.get("failed", 0))
    for name, gone in ("messages", lost), ("answers", missing):
        if len(gone) > excused:
            wrong.append(f"{len(gone)} {name} lost, where {excused} may be: {gone[:10]}")
    numbers = (
        f"{proxy.done} cuts, {c.get('session', 0)} sessions, {c.get('resumed', 0)} resumptions, {c.get('failed', 0)} refused; "
        f"{sent} sent, {len(lost)} lost; {len(record.answered)} answers sent, {len(missing)} lost; {seconds:.0f} s"
    )
    return wrong, numbers


async def main(options):
    passed = failed = 0
    for name in options.clients or ["slixmpp", "xmppjs"]:
        receiver, users, spared = {
            "slixmpp": (slixmpp_receiver, ("user70", "user71"), (0, 0)),
            "xmppjs": (xmppjs_receiver, ("user72", "user73"), LOGIN_OF_XMPPJS),
        }[name]
        wrong, numbers = await play(receiver, options.port, options.cuts, options.seed, users, spared)
        print("FAILED" if wrong else "ok", f"{name}: {numbers}", *(f"\n    {w}" for w in wrong), flush=True)
        passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("clients", nargs="*", choices=[[], "slixmpp", "xmppjs"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options)))
