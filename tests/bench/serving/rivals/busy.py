"""A server that does nothing but say 429: what the machine itself takes for that, beside whatever else runs on it."""

import asyncio

ANSWER = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"


class Busy(asyncio.Protocol):
    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, _):
        self._transport.write(ANSWER)


async def main():
    server = await asyncio.get_running_loop().create_server(Busy, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201 (the bench reads it)
    await server.serve_forever()


asyncio.run(main())
