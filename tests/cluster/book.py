"""What clients have sent and heard, and what of it is wrong."""

import collections
import time

CLIENT = "{jabber:client}"
# Beside `Peer.TTL`: the next renewal of whoever notices, and a machine that has other things to do.
SLACK = 2.0
# A client that is back no sooner is named.
LONG = 30.0


class Message:
    """One of a row from one session to one account; `arrivals` are times and sessions."""

    def __init__(self, sender, to, number):
        self.sender, self.to, self.number = sender, to, number
        self.at, self.is_acknowledged, self.bounced, self.arrivals = time.monotonic(), False, None, []

    def waited(self):
        return self.arrivals[0][0] - self.at


class Book:
    def __init__(self, nodes):
        # Where clients connect to.
        self.nodes = nodes
        # A directory for all that goes over each client's connection.
        self.traces = None
        self.contacts, self.accounts = {}, []
        self.devices = []
        self.sessions = []
        self.messages, self.numbers, self.highest = {}, {}, {}
        self.edits = collections.defaultdict(dict)  # account: contact: [asked, acknowledged]
        self.oddities = collections.Counter()
        self.begin()

    def begin(self):
        """A new round: what is over is forgotten."""
        self.earlier, self.messages = self.messages, {}
        self.sessions = [session for session in self.sessions if session.ended is None]
        for session in self.sessions:
            session.ends.clear()
            session.knew.intersection_update(session.seen)
        self.fault = None
        self.refusals, self.resumptions, self.returns = [], 0, {}
        self.misordered, self.stream_errors, self.silences = [], collections.Counter(), 0

    def clock(self):
        return time.monotonic() - (self.fault or 0)

    # What devices tell.

    def bound(self, device, session):
        self.sessions.append(session)

    def is_back(self, device):
        """Its connection was lost, and it has another."""
        if self.fault:
            self.returns[device] = time.monotonic() - self.fault

    def resumed(self, device):
        self.resumptions += 1

    def refused(self, device, session):
        self.refusals.append(session)

    def silent(self, device):
        self.silences += 1

    def stream_error(self, device, condition):
        self.stream_errors[condition] += 1

    def odd(self, device, where, element):
        self.oddities[f"{where}: {element.tag}"] += 1

    def message(self, device, session, element):
        body = element.find(CLIENT + "body")
        if element.get("type") == "error":
            self.heard(session, element.get("id"), element.find(CLIENT + "error")[0].tag.split("}")[1])
        else:
            self.heard(session, body is not None and body.text, None)

    def heard(self, session, name, error):
        """One of ours has come, or come back."""
        message = self.messages.get(name)
        if message is None:
            earlier = self.earlier.get(name)
            self.oddities["a message a round late" if earlier and not earlier.arrivals else f"again in a later round: {name}"] += 1
        elif error:
            message.bounced = error
        else:
            if not message.arrivals:
                row = name.rsplit(" ", 1)[0]
                if message.number < self.highest.get(row, 0):
                    self.misordered.append(name)
                self.highest[row] = max(message.number, self.highest.get(row, 0))
            message.arrivals.append((time.monotonic(), session))

    def edited(self, account, contact, edit):
        """The answer to come tells that it is acknowledged."""
        asked = self.edits[account].setdefault(contact, [0, 0])
        asked[0] = edit

        def answer(element):
            if element is not None and element.get("type") == "result":
                asked[1] = max(asked[1], edit)

        return answer

    def pushed(self, device, item):
        pass

    def roster(self, device, query):
        for item in query:
            asked, acknowledged = self.edits[device.account].get(item.get("jid"), (0, 0))
            if asked and not acknowledged <= int(item.get("name")) <= asked:
                self.oddities["a roster without what was acknowledged"] += 1
        missing = {c for c, (_, done) in self.edits[device.account].items() if done} - {item.get("jid") for item in query}
        if missing:
            self.oddities["a roster without an item that was acknowledged"] += len(missing)

    # What is sent.

    def send(self, device, to, way):
        """A numbered message; `to` is the JID, `way` names the row beside the two addresses."""
        account = to.split("@")[0]
        # To two full JIDs are two rows: what was for a session that has ended waits with the account's backlog.
        row = f"{device.session.jid} {to} {way}"
        number = self.numbers[row] = self.numbers.get(row, 0) + 1
        name = f"{row} {number}"
        message = self.messages[name] = Message(device.session, account, number)

        def acknowledged():
            message.is_acknowledged = True

        device.send_message(to, name, name, acknowledged)

    # What is wrong.

    def is_complete(self, ignoring):
        """Nothing is under way any more, as far as clients can know."""
        ignored = set(map(id, ignoring))
        if any(device.session and device.session.unacknowledged for device in self.devices):
            return False
        return all(m.arrivals or m.bounced or not m.is_acknowledged or id(m) in ignored for m in self.messages.values())

    def judge(self, round_):
        """Counts of what happened in a round. `round_.died`: accounts whose homes it has ended."""
        died = round_.died
        count = collections.Counter(sent=0, lost=0, gone=0, doubled=0, repeated=0, refused=0)
        for message in self.messages.values():
            count["sent"] += 1
            # What only a home had that died: of the sender, or of the recipient.
            dead = message.to in died or message.sender.device.account in died
            before = self.fault is not None and message.at < self.fault + round_.told_within
            if message.bounced:
                count["refused"] += 1
            elif message.is_acknowledged and not message.arrivals:
                count["gone" if dead and before else "lost"] += 1
                round_.note(f"no arrival: {describe(message, self.fault)}{' (home died)' if dead else ''}")
            if len(message.arrivals) > 1:
                count["repeated" if message.to in died and before else "doubled"] += len(message.arrivals) - 1
                round_.note(f"{len(message.arrivals)} arrivals: {describe(message, self.fault)}")
        count["misordered"] = len(self.misordered)
        for name in self.misordered:
            round_.note(f"out of order: {name}")
        self._sessions(round_, count)
        self._presence(round_, count)
        arrived = [m for m in self.messages.values() if m.arrivals and m.to not in round_.away]
        slowest = max(arrived, key=Message.waited, default=None)
        count["wait"] = slowest.waited() if slowest else 0
        if count["wait"] > round_.told_within:
            round_.note(f"waited longest: {describe(slowest, self.fault)}")
        return count

    def _sessions(self, round_, count):
        count["resumed"] = self.resumptions
        for session in self.refusals:
            expected = session.device.account in round_.died
            count["died" if expected else "not resumed"] += 1
            if not expected:
                round_.note(f"not resumed: {session.jid}, whose home lived")
        count["back"] = max(self.returns.values(), default=0)
        for device, seconds in self.returns.items():
            if seconds > LONG:
                round_.note(f"back after {seconds:.1f} s: {device.label}")

    def _presence(self, round_, count):
        alive = {s.jid: s for s in self.sessions if s.ended is None and s.device.ready.is_set()}
        gone = {s.jid: s for s in self.sessions if s.ended is not None}
        slowest = 0
        for watcher in alive.values():
            contacts = self.contacts.get(watcher.device.account, ())
            for jid, session in alive.items():
                if session.device.account not in contacts:
                    continue
                count["pairs"] += 1
                if jid not in watcher.seen:
                    count["wrong"] += 1
                    round_.note(f"wrongly offline: {jid} to {watcher.jid}")
                elif watcher.seen[jid] != session.device.status:
                    count["wrong"] += 1
                    round_.note(f"stale: {jid} to {watcher.jid}: {watcher.seen[jid]}, not {session.device.status}")
                if watcher.ends.get(jid):
                    count["false"] += 1
                    round_.note(f"false end: {jid} to {watcher.jid} at {at(watcher.ends[jid][0], self.fault)}")
            for jid in watcher.seen:
                if jid not in alive and jid.split("@")[0] in contacts:
                    count["wrong"] += 1
                    round_.note(f"wrongly online: {jid} to {watcher.jid}")
            for jid, session in gone.items():
                if session.device.account not in contacts or jid not in watcher.knew:
                    continue
                ends = watcher.ends.get(jid, [])
                # A session that died with its home did so at the fault, whatever its client knew.
                known = [session.closing, self.fault if session.how == "lost" else None]
                end = min(filter(None, known), default=session.ended)
                count["ends"] += 1
                if len(ends) > 1:
                    count["twice"] += 1
                    round_.note(f"told {len(ends)} times: {jid} to {watcher.jid} at {', '.join(at(e, self.fault) for e in ends)}")
                if ends and ends[0] < end - 0.001:
                    count["false"] += 1
                    round_.note(f"told too early: {jid} to {watcher.jid} at {at(ends[0], self.fault)}")
                if ends and session.how == "lost":
                    slowest = max(slowest, ends[0] - end)
                # Whose own transport was lost hears of it when that is back.
                within = max(round_.told_within, self.returns.get(watcher.device, 0) + 1)
                if ends and session.how == "lost" and ends[0] - end > within:
                    count["late"] += 1
                    round_.note(f"told late: {jid} to {watcher.jid} after {ends[0] - end:.1f} s")
        count["told"] = slowest


def at(moment, fault):
    return f"{moment - fault:+.2f} s" if fault else "?"


def describe(message, fault):
    arrivals = ", ".join(f"{session.jid} {at(when, fault)}" for when, session in message.arrivals)
    return f"{message.sender.jid} → {message.to} {message.number}, sent {at(message.at, fault)} [{arrivals}]"
