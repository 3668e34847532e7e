"""What one client sends is read by the server and by expat, and what the server passes on to another client by expat again.

Usage: compare.py --port PORT [--stanzas 1000] [--seed 1]

Expat is the parser in slixmpp, Gajim and Prosody, and one of XML 1.0's fourth edition. What has to hold of any bytes:
what is passed on expat accepts, with each of the separators between namespace and name that programs choose; it
accepted what was sent as well; and it reads the same in both. The server has to allow plain text, and to know user80 and
user81, each with the password "secret-of-NAME"."""
import argparse
import base64
import random
import socket
import sys
from xml.parsers import expat

SEPARATORS = [None, "\x01", " ", "}", "|", "\n", ">", "^"]
STREAMS = "http://etherx.jabber.org/streams"
RECIPIENT = "user81@localhost/x"
# Names of the fourth edition and of the fifth, ASCII and not.
NAMES = ["a", "body", "_x-1.y", "x", "item", "é", "Ω", "ⰰ", "x⁰", "𐐀", "·a", "a·b", "ª", "Aͯ", "a٠", "xml", "xmlnsx", ":a", "1a", "-"]
PREFIXES = ["", "", "", "p:", "q:", "stream:", "xml:", "é:", "ⰰ:", "undeclared:", "xmlns:"]
NAMESPACES = ["jabber:client", "urn:x", "urn:y?a&amp;b", "", "urn:a b", "urn:}", "urn:|", "urn:&#x20;", "urn:&#10;", "urn:é", "urn:^",
              "urn:&gt;", "urn:]", "http://www.w3.org/XML/1998/namespace", "http://www.w3.org/2000/xmlns/", "u" * 200]
TEXTS = ["hi", "é", "&lt;", "&#xD;", "&#65;", "\r\n", "\r", "\t", "]]", "]]>", ">", "'", '"', "<![CDATA[<&>]]>", "<![CDATA[]]>", "\ufeff",
         "&#xFFFE;", "\ufffe", "\uffff", "&#x10FFFF;", "&#xD800;", "&apos;&quot;", "\x7f", "\x85", "\u2028", "&nbsp;", "<!-- -->", "<?a?>"]


def header(declarations=""):
    return (f"<stream:stream xmlns='jabber:client' xmlns:stream='{STREAMS}'{declarations} to='localhost' version='1.0'>")


class Client:
    """One login on a plain socket."""

    def __init__(self, port, user, resource, declarations=""):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.read = b""
        self.header = header(declarations)
        self.send(header())
        self.until(b"</stream:features>")
        credentials = base64.b64encode(f"\0{user}\0secret-of-{user}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{credentials}</auth>")
        self.until(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
        self.send(self.header)
        self.start = self.until(b"</stream:features>")
        self.send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                  f"<resource>{resource}</resource></bind></iq>")
        self.start += self.until(b"</iq>")

    def send(self, data):
        self.socket.sendall(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)

    def receive(self):
        data = self.socket.recv(65536)
        self.read += data
        return bool(data)

    def until(self, end):
        while end not in self.read:
            if not self.receive():
                raise EOFError(self.read[-300:])
        before, self.read = self.read.split(end, 1)
        return before + end

    def close(self):
        self.socket.close()


class Tree:
    """What expat makes of a stream: the first-level elements, as nested lists."""

    def __init__(self):
        self.parser = expat.ParserCreate("UTF-8", "\x01")
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        self.stack, self.elements = [[]], []

    def begin(self, name, attributes):
        self.stack.append([name, attributes])

    def end(self, _):
        element = self.stack.pop()
        self.stack[-1].append(element)
        if len(self.stack) == 2:
            self.elements.append(element)

    def text(self, data):
        inside = self.stack[-1]
        if len(self.stack) <= 2:
            return
        if len(inside) > 2 and isinstance(inside[-1], str):
            inside[-1] += data
        else:
            inside.append(data)


def pick(dice, choices, odd=0.5):
    """Mostly the first, which are in order."""
    return dice.choice(choices if dice.random() < odd else choices[:5])


def attribute(dice, name, value):
    quote = dice.choice("'\"")
    return f" {name}={quote}{value.replace(quote, '')}{quote}"


def element(dice, odd, level=0):
    name = pick(dice, PREFIXES, odd) + pick(dice, NAMES, odd)
    start = f"<{name}"
    for prefix in dice.sample(["", ":p", ":q", ":é", ":ⰰ", ":xml", ":stream"], dice.choice([0, 1, 1, 2])):
        if not prefix or prefix in (":p", ":q") or dice.random() < odd:
            start += attribute(dice, "xmlns" + prefix, pick(dice, NAMESPACES, odd))
    for _ in range(dice.choice([0, 0, 1, 2])):
        start += attribute(dice, pick(dice, PREFIXES, odd) + pick(dice, NAMES, odd), pick(dice, TEXTS, odd).replace("<", ""))
    if dice.random() < 0.3 or level > 3:
        return start + dice.choice(["/>", " />"])
    inside = "".join(content(dice, odd, level) for _ in range(dice.randrange(4)))
    return f"{start}>{inside}</{name}>"


def content(dice, odd, level):
    return element(dice, odd, level + 1) if dice.random() < 0.5 else pick(dice, TEXTS, odd)


def stanza(dice):
    """Well-formed more often than not, and then sometimes with a few bytes changed."""
    odd = dice.choice([0, 0, 0.03, 0.1, 0.3])
    kind = dice.choice(["message", "presence", "p:message"] if odd > 0.1 else ["message", "presence"])
    declared = " xmlns:p='jabber:client' xmlns:q='urn:q'" if kind.startswith("p:") else dice.choice(["", " xmlns:q='urn:q'"])
    declared += "" if "xmlns:p" in declared else f" xmlns:p='{dice.choice(['urn:p', 'jabber:client'])}'"
    declared += "" if "xmlns:q" in declared else attribute(dice, "xmlns:q", pick(dice, NAMESPACES[:3] + ["urn:q"], odd))
    start = f"<{kind}{declared} to='{RECIPIENT}'" + (attribute(dice, pick(dice, NAMES, odd), "v") if dice.random() < odd else "")
    inside = "".join(element(dice, odd) for _ in range(dice.randrange(1, 4)))
    data = f"{start}>{inside}</{kind}>".encode("utf-8", "surrogatepass")
    if dice.random() < 0.15:
        data = bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(start), len(data))
            data[at:at + dice.randrange(2)] = bytes([dice.choice([dice.randrange(256), *b"<>&;'\"/=:\r\n\t x"])])
        data = bytes(data)
    return data


def compare(sent, came):
    """What is wrong with a stanza that was passed on, if anything."""
    if sent is None:
        return "expat refuses what was sent, and it was passed on"
    for attributes in (sent[1], came[1]):
        for name in ("from", "to", "id"):
            attributes.pop(name, None)
    return None if sent == came else f"expat reads it otherwise:\n  {sent}\n  {came}"


class Run:
    def __init__(self, port, seed):
        self.port, self.dice = port, random.Random(seed)
        self.passed = self.refused = self.closed = 0
        self.faults = []
        self.connect_recipient()
        self.sender = None

    def connect_recipient(self):
        self.recipient = Client(self.port, "user81", "x")
        self.parsers = [expat.ParserCreate("UTF-8", separator) for separator in SEPARATORS]
        self.tree = Tree()
        for parser in [*self.parsers, self.tree.parser]:
            parser.Parse(self.recipient.start.replace(b"<?xml version='1.0'?>", b"", 1))
        self.tree.elements.clear()

    def connect_sender(self):
        declarations = "".join(
            attribute(self.dice, "xmlns:" + prefix, self.dice.choice(NAMESPACES[:3]))
            for prefix in self.dice.sample(["q", "é", "w"], self.dice.randrange(3)))
        self.sender = Client(self.port, "user80", f"s{self.dice.randrange(1 << 30)}", declarations)

    def one(self, number):
        if self.sender is None:
            self.connect_sender()
        data, mark = stanza(self.dice), f"mark-{number}".encode()
        own = Tree()
        own.parser.Parse(self.sender.header.encode())
        try:
            own.parser.Parse(data)
            read = own.elements
        except expat.ExpatError:
            read = []
        self.sender.send(data)
        # What was refused is known when the answer to this has come, or the end of the stream.
        self.sender.send(b"<iq type='get' id='" + mark + b"' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
        try:
            while mark not in self.sender.read and b"</stream:stream>" not in self.sender.read:
                if not self.sender.receive():
                    break
        except (ConnectionError, TimeoutError):
            pass
        answered = mark in self.sender.read
        self.sender.read = b""
        if not answered:
            self.closed += 1
            self.sender.close()
            self.connect_sender()
        self.sender.send(f"<message to='{RECIPIENT}' id='{mark.decode()}'/>")
        came = self.recipient.until(b" id='" + mark + b"'/>")
        try:
            for parser in [*self.parsers, self.tree.parser]:
                parser.Parse(came)
        except (expat.ExpatError, UnicodeError) as error:
            self.faults.append((data, came, f"expat refuses what was passed on: {error}"))
            self.recipient.close()
            self.connect_recipient()
            return
        # Each stream that was closed leaves.
        passed = [element for element in self.tree.elements[:-1] if element[1].get("type") != "unavailable"]
        self.tree.elements.clear()
        self.passed += len(passed)
        if answered and not passed:
            self.refused += 1
        for index, came_tree in enumerate(passed):
            fault = compare(read[index] if index < len(read) else None, came_tree)
            if fault:
                self.faults.append((data, came, fault))


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--stanzas", type=int, default=1000)
    options.add_argument("--seed", type=int, default=1)
    options = options.parse_args()
    run = Run(options.port, options.seed)
    for number in range(options.stanzas):
        run.one(number)
    for data, came, fault in run.faults[:10]:
        print(f"{fault}\n  sent: {data!r}\n  came: {came!r}")
    print(f"expat {expat.EXPAT_VERSION}, {options.stanzas} stanzas of seed {options.seed}: {run.passed} passed on, {run.refused} refused, "
          f"{run.closed} closed the stream; {len(run.faults)} faults")
    sys.exit(bool(run.faults) or not run.passed or not run.refused or not run.closed)


if __name__ == "__main__":
    main()
