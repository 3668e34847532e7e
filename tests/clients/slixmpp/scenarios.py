"""Scenarios that a stock slixmpp client plays against a running server. Each is a coroutine of SCENARIOS; it
fails by an exception. The accounts user0 … user219 exist, each with the password "secret-of-NAME".

Rule ids are those of docs/rules.md."""
import argparse
import asyncio
import sys
import time
import traceback

from client import Refused, Server

ROSTER = "jabber:iq:roster"
CROWD, EACH = 200, 10


async def login_with_each_mechanism(server):
    """SASL-1: two users at once, with what the client prefers, then with each mechanism by name."""
    one, two = await asyncio.gather(server.login("user0", "a"), server.login("user1", "a"))
    assert one.boundjid.full == f"user0@{server.domain}/a", one.boundjid
    assert two.boundjid.full == f"user1@{server.domain}/a", two.boundjid
    for mechanism in server.mechanisms:
        client = await server.login("user0", mechanism, mechanism=mechanism)
        assert client.boundjid.resource == mechanism


async def wrong_password_is_refused(server):
    """SASL-7, SASL-9: refused with every mechanism, and the right password still works."""
    for mechanism in (None, *server.mechanisms):
        try:
            await server.login("user2", "a", mechanism=mechanism, password="not it")
        except Refused:
            continue
        raise AssertionError(f"{mechanism or 'the preferred mechanism'} took a wrong password")
    try:
        await server.login("nobody-of-this-name", "a")
    except Refused:
        pass
    else:
        raise AssertionError("an unknown user got in")
    await server.login("user2", "a")


async def direct_tls(server):
    one = await server.login("user3", "direct", direct_tls=True)
    two = await server.login("user3", "starttls")
    one.send_raw(f"<message to='{two.boundjid}' type='chat'><body>across ports</body></message>")
    await two.message("across ports")


async def server_chooses_a_resource(server):
    """BIND-2: without a wish the resource is made by the server, and two of them differ."""
    one, two = [await server.login("user4", None) for _ in range(2)]
    assert one.boundjid.resource and two.boundjid.resource
    assert one.boundjid.resource != two.boundjid.resource


async def own_presence_comes_back(server):
    """PRES-3, PRES-6: to the session itself and to the user's other session, in full."""
    one = await server.login("user5", "one")
    two = await server.login("user5", "two", available=False)
    two.send_raw("<presence><show>away</show><priority>7</priority></presence>")
    for client in (one, two):
        seen = await client.presence(two.boundjid, "")
        assert (seen["show"], seen["priority"]) == ("away", 7), seen
    await two.presence(one.boundjid, "")
    two.send_raw("<presence type='unavailable'><status>gone</status></presence>")
    for client in (one, two):
        assert (await client.presence(two.boundjid, "unavailable"))["status"] == "gone"


async def roster_get_set_push(server):
    """ROSTER-1, ROSTER-9, ROSTER-10, ROSTER-14, ROSTER-15."""
    one, two = [await server.login("user6", name) for name in ("one", "two")]
    bystander = await server.login("user6", "bystander")

    async def items(client):
        answer = await client.request("get", f"<query xmlns='{ROSTER}'/>")
        assert answer.xml.get("type") == "result", answer
        return {item.get("jid"): item for item in answer.xml.iter(f"{{{ROSTER}}}item")}

    async def pushed(client):
        push = await client.expect(
            lambda s: s.name == "iq" and s.xml.get("type") == "set" and s.xml.find(f"{{{ROSTER}}}query") is not None,
            "a roster push",
        )
        return next(push.xml.iter(f"{{{ROSTER}}}item"))

    async def set_item(client, xml):
        answer = await client.request("set", f"<query xmlns='{ROSTER}'>{xml}</query>")
        return answer.xml.get("type")

    for client in (one, two):
        for jid in await items(client):
            assert await set_item(client, f"<item jid='{jid}' subscription='remove'/>") == "result"
    await one.settle(two)
    for client in (one, two):
        client.received.clear()

    contact = f"friend@{server.domain}"
    assert await set_item(one, f"<item jid='{contact}' name='Näme &amp; &lt;more&gt;'><group>a</group><group>b</group></item>") == "result"
    for client in (one, two):
        item = await pushed(client)
        groups = sorted(group.text for group in item.iter(f"{{{ROSTER}}}group"))
        assert (item.get("jid"), item.get("name"), item.get("subscription")) == (contact, "Näme & <more>", "none")
        assert groups == ["a", "b"], groups
    assert await set_item(two, f"<item jid='{contact}' name='Other'/>") == "result"
    for client in (one, two):
        item = await pushed(client)
        assert item.get("name") == "Other" and not list(item), "the set did not replace the item as a whole"
    assert list(await items(one)) == [contact]
    assert await set_item(one, f"<item jid='{contact}' subscription='remove'/>") == "result"
    for client in (one, two):
        assert (await pushed(client)).get("subscription") == "remove"
    assert not await items(two)
    assert await set_item(one, f"<item jid='{contact}' subscription='remove'/>") == "error"
    await one.settle(two, bystander)
    for client in (one, two, bystander):
        extra = [iq for iq in client.left("iq") if iq.xml.get("type") == "set"]
        assert not extra, f"{client.boundjid.resource} got a push too many: {extra}"


async def messages_both_ways(server):
    """MSG-T5, MSG-T7, STZ-1, STZ-2, STZ-8: bare and full, whole, in order."""
    one, two = await server.login("user7", "a"), await server.login("user8", "a")
    for sender, receiver in ((one, two), (two, one)):
        for to in (receiver.boundjid.bare, receiver.boundjid.full):
            text = f"to {to} <&> äöü \N{SMILING FACE WITH OPEN MOUTH}"
            sender.send_message(mto=to, mbody=text, mtype="chat")
            got = await receiver.message(text)
            assert got["from"] == sender.boundjid and got["to"] == to, got
    for n in range(100):
        to = two.boundjid.full if n % 2 else two.boundjid.bare
        one.send_raw(f"<message to='{to}' type='chat'><body>n{n}</body></message>")
    await one.settle(two)
    assert [m["body"] for m in two.left("message")] == [f"n{n}" for n in range(100)]


async def messages_that_reach_nobody(server):
    """MSG-T8, MSG-T9, IQ-T1: errors keep the id, come from the address meant, and one does not tell accounts apart."""
    one, two = await server.login("user9", "a"), await server.login("user10", "a")
    answers = []
    for to in (f"{two.boundjid.bare}/nowhere", f"nobody-of-this-name@{server.domain}/nowhere"):
        answer = await one.request("get", "<query xmlns='jabber:iq:version'/>", to)
        assert answer.xml.get("type") == "error" and answer["from"] == to, answer
        answers.append((answer["error"]["type"], answer["error"]["condition"]))
    assert answers == [("cancel", "service-unavailable")] * 2, answers
    one.send_raw(f"<message to='{two.boundjid.bare}/nowhere' type='groupchat' id='lost'><body>x</body></message>")
    bounce = await one.expect(lambda s: s.name == "message" and s["id"] == "lost", "the bounce")
    assert bounce.xml.get("type") == "error" and bounce["error"]["condition"] == "service-unavailable"
    await one.settle(two)
    assert not two.left("message")


async def spoofed_from_is_overwritten(server):
    """STZ-1."""
    one, two = await server.login("user11", "a"), await server.login("user12", "a")
    for forged in (f"admin@{server.domain}/x", two.boundjid.full, server.domain):
        one.send_raw(f"<message from='{forged}' to='{two.boundjid}' type='chat'><body>as {forged}</body></message>")
        if one.stream_error_condition:
            break
        assert (await two.message(f"as {forged}"))["from"] == one.boundjid


async def abrupt_disconnect(server):
    """DESTROY-2, DESTROY-8: others see one unavailable, and the same resource can be had again at once."""
    watcher = await server.login("user13", "watcher")
    for _ in range(2):
        phone = await server.login("user13", "phone")
        await watcher.presence(phone.boundjid, "")
        phone.transport.abort()
        again = await server.login("user13", "phone")
        assert again.boundjid == phone.boundjid
        await watcher.presence(phone.boundjid, "unavailable")
        await watcher.presence(phone.boundjid, "")
        watcher.send_raw(f"<message to='{again.boundjid}' type='chat'><body>still there?</body></message>")
        await again.message("still there?")
        again.transport.abort()
        await watcher.presence(phone.boundjid, "unavailable")
    await watcher.settle()
    extra = [p for p in watcher.left("presence") if p["from"].resource == "phone"]
    assert not extra, extra


async def same_resource_replaces(server):
    """BIND-5, DESTROY-7, DESTROY-8: the older session is told `conflict`; the newer one is never told offline."""
    watcher = await server.login("user14", "watcher")
    old = await server.login("user14", "phone")
    await watcher.presence(old.boundjid, "")
    new = await server.login("user14", "phone")
    await asyncio.wait_for(old.gone.wait(), 20)
    assert old.stream_error_condition == "conflict", old.stream_error_condition
    assert new.boundjid == old.boundjid
    kinds = []
    for _ in range(2):
        seen = await watcher.expect(lambda s: s.name == "presence" and s["from"] == new.boundjid, "presence of the phone")
        kinds.append(seen.xml.get("type", ""))
    assert kinds == ["unavailable", ""], kinds
    await new.settle(watcher)
    assert not [p for p in new.left("presence") if p.xml.get("type") == "unavailable"]
    watcher.send_raw(f"<message to='{new.boundjid.bare}/phone' type='chat'><body>to the new one</body></message>")
    await new.message("to the new one")


async def ping_and_disco(server):
    """IQ-6, XEP-0199, XEP-0030."""
    client = await server.login("user15", "a")
    for to in (server.domain, None, client.boundjid.bare):
        answer = await client.request("get", "<ping xmlns='urn:xmpp:ping'/>", to)
        assert answer.xml.get("type") == "result", answer
    info = await client.request("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", server.domain)
    names = {child.get("var") for child in info.xml.iter("{http://jabber.org/protocol/disco#info}feature")}
    identities = {child.get("category") for child in info.xml.iter("{http://jabber.org/protocol/disco#info}identity")}
    assert {"http://jabber.org/protocol/disco#info", "urn:xmpp:ping"} <= names, names
    assert "server" in identities, identities
    unknown = await client.request("get", "<query xmlns='urn:example:nothing-knows-this'/>", server.domain)
    assert unknown["error"]["condition"] == "service-unavailable", unknown


async def subscription_handshake(server):
    """SUB-O1, SUB-I1, SUB-O3, SUB-I3, PRES-5: requested, approved, both ways; presence follows; then cancelled."""
    one, two = await server.login("user16", "a"), await server.login("user17", "a")
    for client in (one, two):
        await client.request("get", f"<query xmlns='{ROSTER}'/>")

    async def subscribe(asker, asked):
        asker.send_raw(f"<presence to='{asked.boundjid.bare}' type='subscribe'/>")
        await asked.presence(asker.boundjid.bare, "subscribe")
        asked.send_raw(f"<presence to='{asker.boundjid.bare}' type='subscribed'/>")
        await asker.presence(asked.boundjid.bare, "subscribed")
        await asker.presence(asked.boundjid, "")

    async def state(client, contact):
        answer = await client.request("get", f"<query xmlns='{ROSTER}'/>")
        items = {item.get("jid"): item for item in answer.xml.iter(f"{{{ROSTER}}}item")}
        item = items.get(contact.boundjid.bare)
        return item is not None and (item.get("subscription"), item.get("ask"))

    await subscribe(one, two)
    assert await state(one, two) == ("to", None), await state(one, two)
    assert await state(two, one) == ("from", None), await state(two, one)
    await subscribe(two, one)
    assert await state(one, two) == ("both", None) and await state(two, one) == ("both", None)

    await one.settle(two)
    for client, other in ((one, two), (two, one)):
        other.received.clear()
        client.send_raw("<presence><show>dnd</show></presence>")
        assert (await other.presence(client.boundjid, ""))["show"] == "dnd"

    # Reconnecting brings the contact's presence by the probe; the contact sees the way out and back in.
    one.transport.abort()
    await two.presence(one.boundjid, "unavailable")
    one = await server.login("user16", "back")
    assert (await one.presence(two.boundjid, ""))["show"] == "dnd"
    await two.presence(one.boundjid, "")

    one.send_raw(f"<presence to='{two.boundjid.bare}' type='unsubscribed'/>")
    await two.presence(one.boundjid, "unavailable")
    await two.presence(one.boundjid.bare, "unsubscribed")
    await one.settle(two)
    assert await state(two, one) == ("from", None), await state(two, one)
    for client, other in ((one, two), (two, one)):
        answer = await client.request(
            "set", f"<query xmlns='{ROSTER}'><item jid='{other.boundjid.bare}' subscription='remove'/></query>"
        )
        assert answer.xml.get("type") == "result", answer
        await client.settle(other)
    assert not await state(one, two) and not await state(two, one)


async def presence_is_private(server):
    """PRES-14, SEC-4: a stranger's probe tells nothing."""
    stranger, user = await server.login("user18", "a"), await server.login("user19", "a")
    stranger.send_raw(f"<presence to='{user.boundjid.bare}' type='probe'/>")
    await stranger.settle(user)
    for seen in stranger.left("presence"):
        assert seen["from"].bare != user.boundjid.bare or seen.xml.get("type") == "unsubscribed", seen
    assert not user.left("presence")


async def directed_presence(server):
    """PRES-9, PRES-10, PRES-8: whole to the one addressed, and its end is told to that one."""
    one, two = await server.login("user20", "a"), await server.login("user21", "a")
    one.send_raw(f"<presence to='{two.boundjid}'><status>for you</status></presence>")
    assert (await two.presence(one.boundjid, ""))["status"] == "for you"
    one.transport.abort()
    await two.presence(one.boundjid, "unavailable")
    await two.settle()
    assert not two.left("presence")


async def crowd(server):
    """STZ-8: 200 clients at once, each sends its neighbours messages: none lost, doubled or out of order."""
    clients = await asyncio.gather(*(server.login(f"user{n}", "crowd", mechanism="PLAIN") for n in range(CROWD)))
    for n in range(EACH):
        for at, client in enumerate(clients):
            for step in (1, 7):
                jid = clients[(at + step) % CROWD].boundjid
                to = jid.full if n % 2 else jid.bare
                client.send_raw(f"<message to='{to}' type='chat' id='{n}'><body>{at} {n}</body></message>")
        await asyncio.sleep(0)
    await clients[0].settle(*clients[1:])
    for at, client in enumerate(clients):
        for step in (1, 7):
            sender = clients[(at - step) % CROWD]
            texts = [m["body"] for m in client.left("message") if m["from"] == sender.boundjid]
            assert texts == [f"{(at - step) % CROWD} {n}" for n in range(EACH)], (client.boundjid, texts)
        assert len(client.left("message")) == 2 * EACH, len(client.left("message"))


SCENARIOS = [
    login_with_each_mechanism,
    wrong_password_is_refused,
    direct_tls,
    server_chooses_a_resource,
    own_presence_comes_back,
    roster_get_set_push,
    messages_both_ways,
    messages_that_reach_nobody,
    spoofed_from_is_overwritten,
    abrupt_disconnect,
    same_resource_replaces,
    ping_and_disco,
    subscription_handshake,
    presence_is_private,
    directed_presence,
]


async def play(server, scenarios):
    passed = failed = 0
    for scenario in scenarios:
        begin = time.monotonic()
        try:
            await scenario(server)
        except Exception:
            failed += 1
            print(f"FAILED {scenario.__name__}\n{traceback.format_exc()}", flush=True)
        else:
            passed += 1
            print(f"ok {scenario.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        await server.close_all()
    print(f"{passed} passed, {failed} failed", flush=True)
    return failed == 0 and passed > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls-port", type=int)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--domain", default="localhost")
    parser.add_argument("--mechanisms", default="PLAIN,SCRAM-SHA-1,SCRAM-SHA-256", help="each must work by name")
    parser.add_argument("--crowd", action="store_true", help="only the scenario with 200 clients")
    parser.add_argument("--only", help="scenarios whose name contains this")
    options = parser.parse_args()
    server = Server(options)
    scenarios = [crowd] if options.crowd else [s for s in SCENARIOS if not options.only or options.only in s.__name__]
    sys.exit(0 if asyncio.run(play(server, scenarios)) else 1)


main()
