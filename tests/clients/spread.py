"""Gives each connection to the next of several servers: a load balancer that knows nothing.

    spread.py PORT:PORT,PORT… …     connections to the first port go to the others in turn
"""
import asyncio
import itertools
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        # One end is gone, so the other one is to be.
        writer.transport.abort()


async def spread(port, behind):
    turns = itertools.cycle(behind)

    async def connected(reader, writer):
        try:
            there, here = await asyncio.open_connection("127.0.0.1", next(turns))
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(copy(reader, here), copy(there, writer))
        for end in (writer, here):
            end.close()

    return await asyncio.start_server(connected, "127.0.0.1", port)


async def main(ways):
    for way in ways:
        port, behind = way.split(":")
        await spread(int(port), [int(one) for one in behind.split(",")])
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1:]))
