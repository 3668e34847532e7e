"""Forwards TCP connections: proxy.py PORT TARGET_PORT. Stopped by SIGSTOP it is a network that is silent; killed, one that is gone."""

import asyncio
import sys


class End(asyncio.Protocol):
    """One end of a connection; `other` is the other one."""

    other = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.other.transport.write(data)

    def pause_writing(self):
        self.other.transport.pause_reading()

    def resume_writing(self):
        self.other.transport.resume_reading()

    def connection_lost(self, _):
        if self.other:
            self.other.transport.close()


class Client(End):
    def __init__(self, target):
        self.target = target

    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()
        self.task = asyncio.create_task(self._connect())

    async def _connect(self):
        try:
            _, server = await asyncio.get_running_loop().create_connection(End, "127.0.0.1", self.target)
        except OSError:
            self.transport.abort()
            return
        self.other, server.other = server, self
        if self.transport.is_closing():
            server.transport.close()
        else:
            self.transport.resume_reading()


async def main(port, target):
    server = await asyncio.get_running_loop().create_server(lambda: Client(target), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
