"""What every scenario stands on: three real brokers, shared by all of one run; a gateway, topics, histories of its own.

The end of a scenario is the same for all of them (Scene.settle): faults are healed, the gateway drains until nothing is
pending, the conservation sums hold, it stops with code 0, and the topics, read to their proven end, are compared with
the histories.
"""

import contextlib
import itertools
import pathlib
import shutil
import time

from tests.history import checker, records
from tests.kafka import Cluster
from tests.lib.client import Client, Load, environment_build
from tests.lib.gateway import Gateway, merge
from tests.lib.places import temporary_directory
from tests.lib.report import Failure, note, run


class Stand:
    def __init__(self, long=False, keep=False, binary=None):
        self.build, default = environment_build()
        self.binary = binary or default
        self.reader = pathlib.Path(self.build) / "tests" / "history" / "topic_read"
        self.long, self.keep = long, keep
        self.kafka = None
        self.home = pathlib.Path(temporary_directory("scenario"))
        self._numbers = itertools.count(1)

    def __enter__(self):
        try:
            self.kafka = Cluster(brokers=3)
        except BaseException:
            shutil.rmtree(self.home, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_exception):
        self.kafka.down()
        if not self.keep:
            shutil.rmtree(self.home, ignore_errors=True)

    @contextlib.contextmanager
    def scene(self, name, **options):
        scene = Scene(self, f"{name}-{next(self._numbers)}", **options)
        try:
            yield scene
        finally:
            scene.close()


class Scene:
    """One gateway with its topics. `sources`: {name: settings}; a topic is made for each that names none."""

    def __init__(self, stand, name, sources=None, config=None, environment=None, make_topics=True, topic_config=None):
        self.stand, self.kafka, self.name = stand, stand.kafka, name
        self.home = stand.home / name
        self.home.mkdir()
        self.sources = sources or {"payments": {}}
        self.topic_config = topic_config
        for source, settings in self.sources.items():
            settings.setdefault("topic", f"{name}.{source}")
            if make_topics:
                self.make_topic(settings["topic"])
        self.gateway = Gateway(stand.binary, self.home, self.kafka.bootstrap, self.sources,
                               merge({"node": {"cluster": name}}, config or {}), environment)
        self.loads, self.clients = [], []

    @property
    def topics(self):
        """Of all sources, with their dead-letter topics."""
        names = {settings["topic"] for settings in self.sources.values()}
        return sorted(names | {f"{name}.dlq" for name in names})

    def make_topic(self, name, partitions=6):
        self.kafka.create_topic(name, partitions=partitions, replication=3, config=self.topic_config)

    def load(self, *options, source="payments"):
        """The load client, ordered and retrying, until it is stopped; a history of its own."""
        history = self.home / f"load-{len(self.loads)}.history"
        load = Load(self.stand.build, self.gateway.url(source), history, "--ordered", "--retry", "--retry-for", "120",
                    "-k", "400", "-t", "3600", *options)
        self.loads.append(load)
        return load

    def client(self):
        client = Client(self.gateway, self.home / f"client-{len(self.clients)}.history")
        self.clients.append(client)
        return client

    def stop_loads(self):
        """Ends the load clients; returns their summaries."""
        for load in self.loads:
            load.stop()
        return [load.wait() for load in self.loads]

    def histories(self):
        for client in self.clients:
            client.close()
        history = checker.History()
        for each in (*self.loads, *self.clients):
            history.load(each.history if isinstance(each, Load) else each.path)
        return history

    def settle(self, min_acked=1, whole=True, drain_s=240, stop=True):
        """The end of a scenario. Returns (verdict, history); raises Failure when anything is wrong."""
        self.kafka.revive()
        self.stop_loads()
        self.kafka.wait_in_sync()
        self.gateway.wait_drained(drain_s)
        self.gateway.check_sums()
        if stop:
            self.gateway.stop()
        return self.check(min_acked, whole)

    def check(self, min_acked=1, whole=True):
        history = self.histories()
        started = time.monotonic()
        found = records.read(self.kafka.bootstrap, self.topics, 300, missing_ok=True,
                             reader=self.stand.reader)
        dedupe = self.gateway.config["dedupe"]["window"] != 0
        verdict = checker.check(history, found, dedupe=dedupe, whole=whole, min_acked=min_acked)
        note(f"{verdict.line()} records={verdict.records} streams={verdict.streams}, "
             f"read in {time.monotonic() - started:.1f} s")
        if not verdict.passed:
            raise Failure(f"{verdict.line()}: {verdict.why()}")
        return verdict, history

    def records(self, *topics, values=False):
        return records.read(self.kafka.bootstrap, topics or self.topics, 120, values=values, headers=True,
                            missing_ok=True, reader=self.stand.reader)

    def close(self):
        for each in (*self.loads, *self.clients):
            each.close()
        self.gateway.close()
        if self.stand.keep:
            return
        shutil.rmtree(self.gateway.spool, ignore_errors=True)


def main(scenarios, description, make_stand=Stand, default=None):
    """The command line of a suite: which scenarios (unless named: those in `default`, or all), how long."""
    import argparse

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("scenario", nargs="*", help=f"default: all of {', '.join(default or scenarios)}")
    parser.add_argument("--long", action="store_true", help="longer faults, more kills, more data")
    parser.add_argument("--keep", action="store_true", help="leave spools, logs and histories behind")
    parser.add_argument("--sluice", help="the gateway (default: $SLUICE_BINARY, build-test/sluice)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.scenario if name not in scenarios]
    if unknown:
        parser.error(f"no scenario {unknown[0]}; there are: {', '.join(scenarios)}")
    chosen = arguments.scenario or list(default or scenarios)
    with make_stand(arguments.long, arguments.keep, arguments.sluice) as stand:
        if arguments.keep:
            note(f"everything stays in {stand.home}")
        good = True
        for name in chosen:
            good = run(name, lambda: scenarios[name](stand)) and good
            stand.kafka.heal()
    return 0 if good else 1
