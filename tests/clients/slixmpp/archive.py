"""slixmpp's own archive client queries the archive of the cookbook (docs/cookbook/archive.md), while another
device sees the same messages live, as copies, offline and after a resumption: one id everywhere."""
import argparse
import asyncio

from client import Server

SID, MAM = "urn:xmpp:sid:0", "urn:xmpp:mam:2"
RSM = "http://jabber.org/protocol/rsm"
MESSAGES = 25


def ids(message, account):
    """The ids that a message, or the one that it is a copy of, has in an account's archive."""
    return [mark.get("id") for mark in message.xml.iter(f"{{{SID}}}stanza-id") if mark.get("by") == account]


def text(message):
    return next(body.text for body in message.xml.iter("{jabber:client}body"))


def kept(result):
    return text(result), result["mam_result"]["id"]


async def login(server, user, resource, **options):
    client = await server.login(user, resource, **options)
    client.register_plugin("xep_0313")
    return client


async def everything(client, **filters):
    return [kept(result) async for result in client.plugin["xep_0313"].iterate(**filters)]


async def play(server):
    alice, bob = (f"{name}@{server.domain}" for name in ("user0", "user1"))
    sender = await login(server, "user0", "sender")
    copies = await login(server, "user0", "copies")
    enable = "<enable xmlns='urn:xmpp:carbons:2'/>"
    assert (await copies.request("set", enable))["type"] == "result"

    # Offline first, then to a client that is there.
    for n in range(MESSAGES):
        sender.send_raw(f"<message to='{bob}' type='chat' id='m{n}'><body>{n}</body></message>")
    await sender.settle()
    reader = await login(server, "user1", "reader")
    for n in range(MESSAGES, 2 * MESSAGES):
        sender.send_raw(f"<message to='{bob}' type='chat' id='m{n}'><body>{n}</body></message>")
    last = 2 * MESSAGES - 1
    seen = []
    for n in range(last + 1):
        message = await reader.message(str(n))
        (one,) = ids(message, bob)
        assert not ids(message, alice), "the sender's archive is its own business"
        seen.append((str(n), one))

    # In pages, forwards and backwards, filtered, by its ids.
    assert await everything(reader) == seen
    assert await everything(reader, reverse=True) == seen[::-1]
    assert await everything(reader, with_jid=alice, rsm={"max": 7}) == seen
    assert await everything(reader, with_jid=f"nobody@{server.domain}") == []
    assert await everything(reader, total=3) == seen[:3]
    page = await reader.plugin["xep_0313"].retrieve(rsm={"max": 5, "after": seen[9][1]})
    assert [kept(result) for result in page["mam"]["results"]] == seen[10:15]
    assert page["mam_fin"]["rsm"]["count"] == str(len(seen)), page
    page = await reader.plugin["xep_0313"].retrieve(rsm={"max": 2, "before": seen[1][1]})
    assert [kept(result) for result in page["mam"]["results"]] == seen[:1]
    assert page.xml[0].get("complete") == "true", page
    metadata = (await reader.plugin["xep_0313"].get_archive_metadata())["mam_metadata"]
    assert (metadata["start"]["id"], metadata["end"]["id"]) == (seen[0][1], seen[-1][1])
    since = await everything(reader, start=metadata["end"]["timestamp"])
    assert since and since == seen[-len(since):]
    fields = (await reader.plugin["xep_0313"].get_fields()).get_fields()
    assert {"start", "end", "with", "ids"} <= set(fields), fields
    features = (await reader.plugin["xep_0030"].get_info(jid=bob))["disco_info"]["features"]
    assert {MAM, SID} <= set(features), features

    # The sender's own archive has the ids that its other device has seen on the copies.
    copied = []
    while len(copied) <= last:
        copy = await copies.expect(lambda s: s.name == "message" and ids(s, alice), "a copy")
        copied.append((text(copy), *ids(copy, alice)))
    assert await everything(copies) == copied == await everything(sender)
    for client, account in ((copies, alice), (reader, bob)):
        assert not [one for one in client.left("message") if ids(one, account)], "nothing came twice"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    options = parser.parse_args()
    options.tls_port, options.domain, options.mechanisms = None, "localhost", "PLAIN"
    server = Server(options)
    try:
        await play(server)
    finally:
        await server.close_all()
    print("the archive answers")


asyncio.run(main())
