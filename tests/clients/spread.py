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
    # Nobody else keeps them.
    tasks = set()

    async def connected(reader, writer):
        task = asyncio.current_task()
        tasks.add(task)
        task.add_done_callback(tasks.discard)
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
    servers = []
    for way in ways:
        port, behind = way.split(":")
        servers.append(await spread(int(port), [int(one) for one in behind.split(",")]))
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(sys.argv[1:]))
