#!/usr/bin/env python3
"""A TCP proxy with toxics, as a process of its own: proxy.py LISTEN_PORT TARGET_HOST TARGET_PORT CONTROL STATISTICS
MARK

CONTROL is a file of JSON, a list of {"name", "type", "stream": "upstream"|"downstream", "toxicity": 0…1, "attributes":
{…}}, read again whenever it changes; it is to be replaced by rename. The types and their attributes are those of
Toxiproxy:

    latency      latency, jitter (ms)          every piece of data comes that much later; order is kept
    bandwidth    rate (KB/s)
    slow_close   delay (ms)                    the end of the stream comes that much later
    timeout      timeout (ms)                  no data comes through; after so long the connection is closed, 0: never
    reset_peer   timeout (ms)                  after so long the connection is reset
    slicer       average_size, size_variation (bytes), delay (µs)
    limit_data   bytes                         after so many the connection is closed

Upstream is what the client says to the server. A toxic works on connections that stand, too; its toxicity is drawn once
for each connection. STATISTICS is rewritten twice a second: {"connections": N, "applied": {name: times},
"in_force": [name]}; that is the proof.

Its own connections carry MARK (SO_MARK; 0: none), by which the rule that sends everybody else here lets them through.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import struct
import sys
import time

READ_BYTES = 64 << 10
QUEUE_PIECES = 256


class Toxics:
    """The list in force, and how often each of them did something."""

    def __init__(self, path):
        self._path, self._stamp, self.listed, self.applied, self.connections = path, None, [], {}, 0

    def refresh(self):
        """True when the list is another one than before."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            stat = os.stat(self._path)
            if (stat.st_mtime_ns, stat.st_ino) != self._stamp:
                with open(self._path, encoding="utf-8") as file:
                    self.listed = json.load(file)
                self._stamp = (stat.st_mtime_ns, stat.st_ino)
                return True
        return False

    def on(self, stream, kind, drawn):
        """The toxics of that kind on that stream of a connection; `drawn` is the connection's, so that it stays the
        same."""
        for toxic in self.listed:
            if toxic["type"] == kind and toxic["stream"] == stream:
                if drawn.setdefault(toxic["name"], random.random()) < toxic["toxicity"]:
                    yield toxic, toxic["attributes"]

    def did(self, toxic):
        self.applied[toxic["name"]] = self.applied.get(toxic["name"], 0) + 1


class Direction:
    """One direction of one connection: a reader fills the queue, a writer empties it when each piece is due."""

    def __init__(self, link, stream, reader, writer):
        self.link, self.stream, self.reader, self.writer = link, stream, reader, writer
        self.queue = asyncio.Queue(QUEUE_PIECES)
        self.passed = 0  # bytes

    def on(self, kind):
        return self.link.toxics.on(self.stream, kind, self.link.drawn)

    async def read(self):
        while True:
            data = await self.reader.read(READ_BYTES)
            due = time.monotonic()
            for toxic, values in self.on("latency"):
                jitter = values.get("jitter", 0)
                due += max(0, values["latency"] + random.uniform(-jitter, jitter)) / 1000
                self.link.toxics.did(toxic)
            await self.queue.put((due, data))
            if not data:
                return

    async def write(self):
        while True:
            due, data = await self.queue.get()
            await asyncio.sleep(max(0, due - time.monotonic()))
            if not data:
                break
            await self._blocked(data)
            for piece in self._sliced(data):
                await self._send(piece)
        for toxic, values in self.on("slow_close"):
            self.link.toxics.did(toxic)
            await asyncio.sleep(values["delay"] / 1000)
        if self.writer.can_write_eof():
            self.writer.write_eof()

    async def _blocked(self, _data):
        """Holds what comes while there is a timeout toxic; counts it."""
        counted = set()
        while True:
            held = list(self.on("timeout"))
            if not held:
                return
            for toxic, _values in held:
                if toxic["name"] not in counted:
                    counted.add(toxic["name"])
                    self.link.toxics.did(toxic)
            await asyncio.sleep(0.02)

    def _sliced(self, data):
        for toxic, values in self.on("slicer"):
            self.link.toxics.did(toxic)
            variation, position = values.get("size_variation", 0), 0
            while position < len(data):
                size = max(1, values["average_size"] + random.randint(-variation, variation))
                yield data[position:position + size]
                position += size
            return
        yield data

    async def _send(self, piece):
        for toxic, values in self.on("limit_data"):
            room = values["bytes"] - self.passed
            if len(piece) >= room:
                self.writer.write(piece[:max(0, room)])
                await self.writer.drain()
                self.link.toxics.did(toxic)
                raise ConnectionAbortedError("limit_data")
        for _toxic, values in self.on("slicer"):
            await asyncio.sleep(values.get("delay", 0) / 1e6)
        for toxic, values in self.on("bandwidth"):
            self.link.toxics.did(toxic)
            await asyncio.sleep(len(piece) / (values["rate"] * 1000))
        self.writer.write(piece)
        self.passed += len(piece)
        await self.writer.drain()


class Link:
    """One connection, both directions."""

    def __init__(self, toxics, client, server):
        self.toxics, self.drawn, self.began = toxics, {}, {}
        self.writers = client[1], server[1]
        self.directions = (Direction(self, "upstream", client[0], server[1]),
                           Direction(self, "downstream", server[0], client[1]))

    async def watch(self):
        """Ends the connection when a toxic says so."""
        while True:
            for stream in ("upstream", "downstream"):
                for kind in ("reset_peer", "timeout"):
                    for toxic, values in self.toxics.on(stream, kind, self.drawn):
                        since = self.began.setdefault(toxic["name"], time.monotonic())
                        late = time.monotonic() - since >= values.get("timeout", 0) / 1000
                        if kind == "reset_peer" and late:
                            self.toxics.did(toxic)
                            self._reset()
                            return
                        if kind == "timeout" and late and values.get("timeout", 0) > 0:
                            return
            await asyncio.sleep(0.02)

    def _reset(self):
        for writer in self.writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def run(self):
        both = asyncio.gather(*(step for each in self.directions for step in (each.read(), each.write())))
        watch = asyncio.ensure_future(self.watch())
        try:
            await asyncio.wait([both, watch], return_when=asyncio.FIRST_COMPLETED)
        finally:
            both.cancel()
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await both
            for writer in self.writers:
                writer.close()


class Proxy:
    def __init__(self, target, control, statistics, mark):
        self.target, self.mark, self.statistics, self.toxics = target, mark, statistics, Toxics(control)

    async def dial(self):
        upstream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self.mark:
            upstream.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
        upstream.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(upstream, self.target)
            return await asyncio.open_connection(sock=upstream)
        except OSError:
            upstream.close()
            raise

    async def serve(self, reader, writer):
        self.toxics.connections += 1
        self.toxics.refresh()
        try:
            server = await self.dial()
        except OSError:
            writer.transport.abort()
            return
        await Link(self.toxics, (reader, writer), server).run()

    async def run(self, port):
        server = await asyncio.start_server(self.serve, "0.0.0.0", port, backlog=256)
        turn = 0
        async with server:
            while True:
                if self.toxics.refresh() or turn % 10 == 0:
                    self.report()
                turn += 1
                await asyncio.sleep(0.05)

    def report(self):
        aside = f"{self.statistics}.new"
        with open(aside, "w", encoding="ascii") as file:
            json.dump({"connections": self.toxics.connections, "applied": self.toxics.applied,
                       "in_force": [toxic["name"] for toxic in self.toxics.listed]}, file)
        os.rename(aside, self.statistics)


def main():
    port, host, target, control, statistics, mark = sys.argv[1:]
    asyncio.run(Proxy((host, int(target)), control, statistics, int(mark)).run(int(port)))


if __name__ == "__main__":
    main()
