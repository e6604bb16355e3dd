#!/usr/bin/env python3
"""desk.py LEDGER [forget N | late N]: a small service to drill: takes events, syncs them to a file, then answers; tells
its state and figures as a gateway does. With `forget N` it answers the N-th event without writing it: sabotage. With
`late N` it writes the N-th event and all after it two seconds after the answer, and tells of them as pending.

Prints its port. Ends when its standard input does."""

import http.server
import json
import os
import sys
import threading


class Desk(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, ledger, forget=None, late=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ledger, self.forget, self.late = open(ledger, "ab", 0), forget, late
        self.lock, self.accepted, self.pending = threading.Lock(), 0, 0

    def handle_error(self, request, client_address):
        """A client that went away."""

    def take(self, body):
        with self.lock:
            self.accepted += 1
            if self.late and self.accepted >= self.late:
                self.pending += 1
                threading.Timer(2, self.take_late, (body,)).start()
            elif self.accepted != self.forget:
                self.write(body)

    def take_late(self, body):
        with self.lock:
            self.write(body)
            self.pending -= 1

    def write(self, body):
        self.ledger.write(body + b"\n")
        os.fdatasync(self.ledger.fileno())

    def metrics(self):
        return (f'sluice_events_total{{source="desk",outcome="accepted"}} {self.accepted}\n'
                f'sluice_ack_seconds_bucket{{source="desk",le="0.01"}} {self.accepted}\n'
                f'sluice_ack_seconds_bucket{{source="desk",le="+Inf"}} {self.accepted}\n'
                f"sluice_spool_pending_events {self.pending}\nsluice_conservation_error 0\n")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.take(self.rfile.read(int(self.headers["content-length"])))
        self.answer("{}")

    def do_GET(self):
        self.answer(self.server.metrics() if self.path == "/metrics" else json.dumps({"state": "ready"}))

    def answer(self, text):
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    desk = Desk(sys.argv[1], **{word: int(number) for word, number in zip(sys.argv[2::2], sys.argv[3::2])})
    print(desk.server_address[1], flush=True)
    threading.Thread(target=desk.serve_forever, daemon=True).start()
    sys.stdin.read()
