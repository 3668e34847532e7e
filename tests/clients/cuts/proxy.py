"""A TCP proxy that forwards to a server and cuts each connection at a random byte of one direction."""
import asyncio
import random
import socket
import struct

# Up to this many bytes pass before the cut, from the client and from the server. Some cuts
# fall into logins and most behind them.
FROM_CLIENT, FROM_SERVER = 2500, 12000


class Proxy:
    def __init__(self, port, cuts, seed, spared=(0, 0)):
        """`spared`: so many first bytes of each direction never see a cut."""
        self.spared = spared
        self.target, self.left, self.done = port, cuts, 0
        self.random = random.Random(seed)
        self.finished = asyncio.Event()

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        # Both limits are drawn; whichever is reached first cuts.
        limits = [least + self.random.randrange(most) for least, most in zip(self.spared, (FROM_CLIENT, FROM_SERVER))]
        reset = self.random.random() < 0.5
        pumps = [
            asyncio.create_task(self._pump(reader, back, limits[0])),
            asyncio.create_task(self._pump(there, writer, limits[1])),
        ]
        finished, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.wait(pumps)
        if any(task.result() for task in finished):
            self.left -= 1
            self.done += 1
            if self.left <= 0:
                self.finished.set()
        for end in (writer, back):
            if reset:  # RST: what the peer has not read yet may be lost too
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    async def _pump(self, reader, writer, limit):
        """True when it ended by a cut, False when an end closed."""
        try:
            while data := await reader.read(4096):
                if self.left > 0:
                    if len(data) > limit:
                        writer.write(data[:limit])
                        return True
                    limit -= len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        return False
