#!/usr/bin/env python3
"""The attacks that go for memory, on a whole `sluice serve` with its default limits: 100 uploads of 4 MiB at once,
before any of them is complete. RssAnon of the process stays under 300 MiB, the body budget included, and honest clients
are answered. Without the dedupe window, whose memory is a budget of its own.
"""

import os
import pathlib
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from attack_bodies import uploads_over_http1, uploads_over_http2  # noqa: E402
from registry import Failed  # noqa: E402
from target import LIMITS, Running  # noqa: E402
from tests.lib.gateway import Gateway  # noqa: E402
from tests.lib.report import Failure  # noqa: E402

RSS_ANON_MOST = 300 << 20


class WholeGateway(Running):
    path, body = "/v1/events/payments", b'{"event_id":"honest","account_id":"a"}'
    loops = max(1, os.cpu_count() // 2)  # what listen.threads is by default

    def __init__(self, gateway):
        super().__init__("127.0.0.1", gateway.ingest_port, gateway.pid, LIMITS, self.path)
        self.most = 0

    def rss(self):
        now = super().rss()
        self.most = max(self.most, now)
        return now


def run(attack):
    home = tempfile.mkdtemp(prefix="sluice-attack-")
    binary = os.environ.get("SLUICE_BINARY", "build/sluice")
    # Nothing listens at port 1: what comes is acknowledged from the disk and stays there.
    gateway = Gateway(binary, home, "127.0.0.1:1", {"payments": {"topic": "payments.events"}},
                      {"limits": {"connections_per_address": 1000}, "dedupe": {"window": 0}})  # its memory is fixed
    try:
        gateway.start()
        target = WholeGateway(gateway)
        attack(target)
        gateway.check_alive()
        if target.most > RSS_ANON_MOST:
            raise Failed(f"RssAnon reached {target.most >> 20} MiB")
        print(f"ok whole gateway: {attack.__name__} (RssAnon at most {target.most >> 20} MiB)", flush=True)
        return True
    except (Failed, Failure, OSError) as failure:
        print(f"not ok whole gateway: {attack.__name__} - {' '.join(str(failure).split())}", flush=True)
        return False
    finally:
        gateway.close()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(0 if all([run(uploads_over_http1), run(uploads_over_http2)]) else 1)
