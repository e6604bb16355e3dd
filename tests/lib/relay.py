"""TCP relays whose two directions can be held: a network between processes of one machine that a test can take apart.

    relays = Relays()
    port = relays.add("gw-a>gw-b", target_port)     # 127.0.0.1:port → 127.0.0.1:target_port
    relays.hold("gw-a>gw-b", forth=True)            # what the dialling side sends stays where it is; the rest goes on
    relays.release("gw-a>gw-b"); relays.reset("gw-a>gw-b"); relays.stat("gw-a>gw-b")

A held direction behaves as TCP does over a network that drops its packets: nothing comes through, neither bytes nor
the end of the stream, until it is released; then all of it does. A connection made meanwhile is accepted and goes no
further.

They run in a process of their own (this file as a program), so that nothing a test does delays a byte. It ends with the
test, however that ends.
"""

import json
import pathlib
import selectors
import socket
import struct
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
READ_BYTES = 256 << 10
HELD_BYTES_MAX = 1 << 20  # taken and not yet passed on, a direction of a connection


class RelayError(Exception):
    """A relay could not do what was asked."""


class Relays:
    """The test's side."""

    def __init__(self):
        from tests.lib import processes
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = processes.spawn([sys.executable, "-m", "tests.lib.relay", theirs.fileno()],
                                            cwd=ROOT, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)
        self._control, self._answers, self._lock = ours, ours.makefile(), threading.Lock()

    def _ask(self, operation, name, **values):
        with self._lock:
            self._control.sendall(json.dumps({"op": operation, "name": name, **values}).encode() + b"\n")
            answer = json.loads(self._answers.readline() or '{"error": "the relays have ended"}')
        if "error" in answer:
            raise RelayError(f"{operation} {name}: {answer['error']}")
        return answer

    def add(self, name, target_port=0):
        """The port to dial. Without a target connections wait, as in a held relay."""
        return self._ask("add", name, target=target_port)["port"]

    def target(self, name, port):
        self._ask("target", name, target=port)

    def hold(self, name, forth=True, back=True):
        """Sets both directions: held or not. `forth`: from the dialling side to the target."""
        self._ask("hold", name, forth=forth, back=back)

    def release(self, name):
        self.hold(name, False, False)

    def reset(self, name):
        """Ends its connections with RST, held or not. New ones are served."""
        self._ask("reset", name)

    def stat(self, name):
        """{"connections", "waiting", "forth", "back"}: now; not yet connected; bytes passed on since the start."""
        return self._ask("stat", name)

    def close(self):
        self._answers.close()
        self._control.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()


# ---- the process


class Direction:
    """Bytes from one socket to the other. `ended`: the source said so; `told`: and the sink has been told."""

    def __init__(self):
        self.buffer, self.ended, self.told = bytearray(), False, False


class Connection:
    def __init__(self, relay, client):
        self.relay, self.client, self.server = relay, client, None
        self.connected = self.closed = self.broken = False  # broken: one side is gone, the other is not to know yet
        self.forth, self.back = Direction(), Direction()
        self.watched = {}
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def dial(self):
        self.server = socket.socket()
        self.server.setblocking(False)
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.connect_ex((HOST, self.relay.target))

    def close(self, reset):
        if self.closed:
            return
        self.closed = True
        self.relay.connections.discard(self)
        for each in (self.client, self.server):
            if each is not None:
                self._watch(each, 0)
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()

    def _watch(self, sock, events):
        before = self.watched.get(sock, 0)
        if events == before:
            return
        selector = self.relay.selector
        if before == 0:
            selector.register(sock, events, self)
        elif events == 0:
            selector.unregister(sock)
        else:
            selector.modify(sock, events, self)
        self.watched[sock] = events

    def update(self):
        """Looks at what may go on: after every event, and when a direction was held or released."""
        if self.closed:
            return
        if self.broken:
            self._update_broken()
        elif self.connected:
            self._update_connected()
        else:
            if self.server is None and self.relay.open():
                self.dial()
            if self.server is not None:
                self._watch(self.server, selectors.EVENT_WRITE if self.relay.open() else 0)

    def _update_broken(self):
        if self.relay.open():
            self.close(reset=True)
            return
        for each in (self.client, self.server):
            self._watch(each, 0)

    def _update_connected(self):
        relay = self.relay
        lines = ((self.forth, self.client, self.server, relay.hold_forth),
                 (self.back, self.server, self.client, relay.hold_back))
        wanted = {self.client: 0, self.server: 0}
        for line, source, sink, held in lines:
            if held:
                continue
            if line.ended and not line.buffer and not line.told:
                line.told = True
                try:
                    sink.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has gone already
            wanted[source] |= selectors.EVENT_READ * (not line.ended and len(line.buffer) < HELD_BYTES_MAX)
            wanted[sink] |= selectors.EVENT_WRITE * bool(line.buffer)
        if self.forth.told and self.back.told:
            self.close(reset=False)
            return
        for sock, events in wanted.items():
            self._watch(sock, events)

    def event(self, sock, events):
        if self.closed:
            return
        if not self.connected:
            if self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
                self.close(reset=True)
                return
            self.connected = True
        try:
            if sock is self.client:
                self._read(events, self.forth, sock, self.relay.hold_forth)
                self.relay.passed_back += self._write(events, self.back, sock, self.relay.hold_back)
            else:
                self._read(events, self.back, sock, self.relay.hold_back)
                self.relay.passed_forth += self._write(events, self.forth, sock, self.relay.hold_forth)
        except OSError:
            self.broken = True
        self.update()

    @staticmethod
    def _read(events, line, sock, held):
        if not events & selectors.EVENT_READ or held or line.ended:
            return
        try:
            found = sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        line.buffer += found
        line.ended = not found

    @staticmethod
    def _write(events, line, sock, held):
        if not events & selectors.EVENT_WRITE or held or not line.buffer:
            return 0
        try:
            sent = sock.send(line.buffer)
        except BlockingIOError:
            return 0
        del line.buffer[:sent]
        return sent


class Relay:
    def __init__(self, selector, target):
        self.selector, self.target = selector, target
        self.hold_forth = self.hold_back = False
        self.passed_forth = self.passed_back = 0
        self.connections = set()
        self.listener = socket.create_server((HOST, 0), backlog=64)
        self.listener.setblocking(False)
        selector.register(self.listener, selectors.EVENT_READ, self)

    def open(self):
        """Whether a connection can be made: that takes both directions."""
        return self.target != 0 and not self.hold_forth and not self.hold_back

    def event(self, _sock, _events):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        connection = Connection(self, client)
        self.connections.add(connection)
        connection.update()

    def answer(self, request):
        operation = request["op"]
        if operation == "target":
            self.target = request["target"]
        elif operation == "hold":
            self.hold_forth, self.hold_back = request["forth"], request["back"]
        elif operation == "reset":
            for each in list(self.connections):
                each.close(reset=True)
        for each in list(self.connections):
            each.update()
        waiting = sum(not each.connected for each in self.connections)
        return {"port": self.listener.getsockname()[1], "connections": len(self.connections) - waiting,
                "waiting": waiting, "forth": self.passed_forth, "back": self.passed_back}


def handle(relays, selector, request):
    name = request["name"]
    if request["op"] == "add":
        if name in relays:
            return {"error": "there is one of that name"}
        relays[name] = Relay(selector, request["target"])
    if name not in relays:
        return {"error": "no such relay"}
    return relays[name].answer(request)


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    selector, relays, received = selectors.DefaultSelector(), {}, b""
    selector.register(control, selectors.EVENT_READ, None)
    while True:
        for key, events in selector.select():
            if key.data is not None:
                key.data.event(key.fileobj, events)
                continue
            piece = control.recv(65536)
            if not piece:
                return
            *lines, received = (received + piece).split(b"\n")
            for line in lines:
                control.sendall(json.dumps(handle(relays, selector, json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
