"""A proxy that does to a server what networks do: refuses, hangs, slows, resets, or cuts an answer in the middle."""

import asyncio
import socket
import struct
import threading
from contextlib import suppress

MODES = ("pass", "refuse", "black hole", "slow", "reset", "cut")
DELAY = 0.25  # seconds before each answer of a slow server


class Proxy:
    """Stand between a service and one server, in a thread of its own."""

    def __init__(self, port):
        self._server_port, self.mode = port, "pass"
        self.swallowed = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._connections = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def turn(self, mode):
        """Treat connections so from now on; what is open is broken where the mode would break it."""
        asyncio.run_coroutine_threadsafe(self._turn(mode), self._loop).result(10)

    def close(self):
        asyncio.run_coroutine_threadsafe(self._turn("reset"), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listening.close()

    async def _turn(self, mode):
        self.mode = mode
        if mode in {"refuse", "reset"}:
            for writer in list(self._connections):
                _reset(writer)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listening))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _serve(self, reader, writer):
        if self.mode in {"refuse", "reset"}:
            _reset(writer)
            return
        self._connections.add(writer)
        try:
            onward, out = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            _reset(writer)
            return
        try:
            await asyncio.gather(self._pump(reader, out, answers=False), self._pump(onward, writer, answers=True))
        finally:
            self._connections.discard(writer)
            for one in (out, writer):
                one.close()

    async def _pump(self, reader, writer, *, answers):
        with suppress(OSError):
            while data := await reader.read(65536):
                if answers and self.mode == "slow":
                    await asyncio.sleep(DELAY)
                if self.mode == "black hole":
                    self.swallowed.set()
                    continue
                if answers and self.mode == "cut":
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    _reset(writer)
                    return
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()


def _reset(writer):
    """Break a connection so that the other side hears of it as a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
