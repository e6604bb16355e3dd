"""A cell whose connections break: between gateways, to Kafka, both; and certificates that are no good."""

import subprocess
import time

from tests.integration.cell_stand import SINGLES
from tests.integration.disk import frozen
from tests.lib.report import expect, note
from tests.lib.waiting import until

FLOW_WINDOW_S = 5  # of two busy cores
QUICK_ACK = {"ha": {"ack_timeout": "2s"}}


def _takeovers(cell):
    return sum(int(node.metric("sluice_takeovers_total")) for node in cell.nodes)


def _flowed(cell, spans):
    """In every window of every span somebody was answered 200."""
    for what, start_ns, end_ns in spans:
        each_second = cell.history.oks_by_window(start_ns, end_ns)
        note(f"{what}: {sum(each_second)} acknowledged, {each_second.count(0)} of {len(each_second)} seconds without")
        expect(all(cell.history.oks_by_window(start_ns, end_ns, FLOW_WINDOW_S)),
               f"{what}: no acknowledgement in {FLOW_WINDOW_S} s")


# ---- between gateways


def partitions(stand):
    """One-way and two-way cuts of one link, and of all of one gateway: nobody is taken over, acknowledgements go on."""
    seconds = 12 if stand.long else 7  # longer than takeover_after
    with stand.cell("partitions") as cell:
        cell.start()
        a, b, c = cell.nodes
        cell.load(*SINGLES)
        cell.wait_load(2000)
        cuts = {"a hears nothing of b": lambda: cell.cut(a, b, to_other=False),
                "b and c apart": lambda: cell.cut(b, c),
                "a apart from both": lambda: cell.isolate(a)}
        if stand.long:
            cuts.update({"b hears nothing of a": lambda: cell.cut(a, b, to_one=False),
                         "c hears nobody": lambda: [cell.cut(c, each, to_other=False) for each in (a, b)],
                         "c is heard by nobody": lambda: [cell.cut(c, each, to_one=False) for each in (a, b)],
                         "a and b apart": lambda: cell.cut(a, b),
                         "nobody hears anybody": lambda: [cell.isolate(each) for each in (a, b)]})
        spans, before = [], _takeovers(cell)
        for what, cut in cuts.items():
            spans.append((what, *_through_a_cut(cell, cut, seconds)))
            expect(_takeovers(cell) == before, f"{what}: a stream was taken over, though its node writes progress")
        cell.settle(min_acked=2000)
        _flowed(cell, spans)


def _through_a_cut(cell, cut, seconds):
    """The span of it. Each node takes events meanwhile: by the third zone, or by Kafka's commits."""
    cut()
    start_ns = time.monotonic_ns()
    until(lambda: any(node.metric("sluice_peer_up") < 2 for node in cell.nodes), "nobody notices the cut", 30)
    before = [node.accepted() for node in cell.nodes]
    for node, count in zip(cell.nodes, before):
        until(lambda: node.accepted() > count, f"{node.name} takes nothing any more", 60)
    time.sleep(max(start_ns / 1e9 + seconds - time.monotonic(), 0))
    end_ns = time.monotonic_ns()
    cell.heal()
    until(cell.is_whole, "the peers do not find each other again", 30)
    return start_ns, end_ns


def alone(stand):
    """A gateway cut off from all but its clients: 503, taken over; it finds out, and goes on with a new stream."""
    with stand.cell("alone", config=QUICK_ACK) as cell:
        cell.start()
        victim, others, client = cell.a, cell.nodes[1:], cell.client(cell.a)
        cell.load(*SINGLES)
        cell.wait_load(2000)
        stream, before = victim.stream(), _takeovers(cell)
        cell.isolate(victim)
        cell.cut_kafka(victim)
        cut_ns = time.monotonic_ns()
        until(lambda: client.post("payments", client.make())[0] == 503, "it answers although it reaches nobody", 30)
        until(lambda: sum(int(node.metric("sluice_takeovers_total")) for node in others) > before,
              "nobody takes it over", 60)
        until(lambda: victim.ready_status() == 503, "/readyz stays 200 although nothing can be acknowledged")
        healed_ns = time.monotonic_ns()
        cell.heal()
        until(lambda: victim.stream() not in (None, stream), "it goes on with the stream that was taken over", 60)
        until(lambda: client.post("payments", client.make())[0] == 200, "it does not recover", 60)
        note(f"cut for {(healed_ns - cut_ns) / 1e9:.1f} s; it writes {victim.stream()} now")
        cell.settle(min_acked=2000)


# ---- and Kafka


def kafka_cut(stand):
    """A gateway that cannot reach Kafka while its peers do lets its stream go, a peer drains it; it takes on all the
    while."""
    let_go = "30s" if stand.long else "8s"
    with stand.cell("kafka-cut", config={"ha": {"let_go_after": let_go}}) as cell:
        cell.start()
        victim, others = cell.a, cell.nodes[1:]
        cell.load(*SINGLES)
        cell.wait_load(2000)
        stream = victim.stream()
        cell.cut_kafka(victim)
        start_ns = time.monotonic_ns()
        until(lambda: victim.stream() not in (None, stream), f"it keeps {stream}", 90)
        let_go_s = (time.monotonic_ns() - start_ns) / 1e9

        def drained():
            found = [node.streams()[stream] for node in others]
            ends = [held["end"] or 0 for each in found for held in each["holders"].values()]
            return max(each["through"] for each in found) >= max(ends)
        until(drained, lambda: f"{stream} is not drained: {[node.streams()[stream] for node in others]}", 60)
        end_ns = time.monotonic_ns()
        note(f"let go after {let_go_s:.1f} s, drained by a peer after {(end_ns - start_ns) / 1e9:.1f} s")
        before = victim.accepted()
        until(lambda: victim.accepted() > before + 200, "it takes nothing any more", 30)
        cell.settle(min_acked=2000)
        _flowed(cell, [("without Kafka", start_ns, end_ns)])


def kafka_cut_one_way(stand):
    """The same, when only what the brokers answer is lost: commits whose outcome nobody knows."""
    with stand.cell("kafka-deaf", config={"ha": {"let_go_after": "8s"}}) as cell:
        cell.start()
        cell.load(*SINGLES)
        for turn in range(3 if stand.long else 1):
            victim = cell.nodes[turn]
            cell.wait_load(2000)
            stream = victim.stream()
            cell.cut_kafka(victim, to_kafka=False)
            until(lambda: victim.stream() not in (None, stream), f"{victim.name} keeps {stream}", 90)
            cell.heal()
            until(lambda: victim.metric("sluice_peer_up") == 2, "the peers are gone", 30)
        cell.settle(min_acked=2000)


def peers_gone(stand):
    """Both peers gone: Kafka's commit acknowledges. Then Kafka too: 503, and nothing is acknowledged. It recovers."""
    with stand.cell("peers-gone", config=QUICK_ACK) as cell:
        cell.start()
        last, client = cell.a, cell.client(cell.a)
        cell.load("-c", "6", "-m", "16", "-r", "600")  # many at once: a commit takes its time
        cell.wait_load(1000)
        for node in cell.nodes[1:]:
            node.kill()
        died, refused = time.monotonic(), []
        until(lambda: last.metric("sluice_peer_up") == 0, "it does not notice")

        def answered():
            began = time.monotonic()
            status = client.post("payments", client.make())[0]
            refused.append((status, round(began - died, 1), round(time.monotonic() - began, 1)))
            return status == 200
        until(answered, "no answer although Kafka commits", 240)
        note(f"alone: (status, s after the deaths, s until it came) {refused}")
        cell.wait_load(100)
        with frozen(stand.kafka):
            frozen_ns = time.monotonic_ns()
            for _ in range(3):
                status, headers, answer = client.post("payments", client.make())
                expect(status == 503, f"{status} {answer} without peers and without Kafka")
                expect(headers.get("retry-after", "").isdigit(), f"503 without Retry-After: {headers}")
            until(lambda: last.ready_status() == 503, "/readyz stays 200 although nothing can be acknowledged")
            thawed_ns = time.monotonic_ns()
        until(lambda: client.post("payments", client.make())[0] == 200, "it does not recover by itself", 90)
        cell.start(*cell.nodes[1:])
        cell.settle(min_acked=1000)
        early = sum(frozen_ns < sent and answered < thawed_ns for sent, answered in cell.history.oks)
        expect(early == 0, f"{early} events were acknowledged with nobody but one disk")


def kafka_gone(stand):
    """Kafka gone alone: the peers acknowledge; a node that dies meanwhile is drained when Kafka is back."""
    with stand.cell("kafka-gone") as cell:
        cell.start()
        cell.load(*SINGLES)
        cell.wait_load(2000)
        with frozen(stand.kafka):
            start_ns = time.monotonic_ns()
            cell.wait_load(2000)
            time.sleep(20 if stand.long else 8)
            stream = cell.c.stream()
            cell.c.kill()
            cell.c.wipe()
            cell.wait_load(1000)
            end_ns = time.monotonic_ns()
            for node in cell.nodes[:2]:
                expect(node.ready_status() == 200, f"{node.name} is not ready although its peer acknowledges")
                expect(node.pending() > 0, "Kafka was not gone")
        cell.start(cell.c)
        note(f"{stream} lost its node's disk while Kafka was gone")
        cell.settle(min_acked=5000)
        _flowed(cell, [("without Kafka", start_ns, end_ns)])
        expect(any(record.stream == stream for record in cell.found), f"nothing of {stream}")


# ---- certificates


def _openssl(*words, home, text=None):
    run = subprocess.run(["openssl", *map(str, words)], cwd=home, input=text, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, check=False)
    expect(run.returncode == 0, f"openssl {words[0]}: {run.stdout}")


class Authority:
    """A certificate authority and what it signs, as files below `home`."""

    def __init__(self, home, name):
        self.home, self.ca = home, home / f"{name}.pem"
        self._key = home / f"{name}.key"
        home.mkdir(exist_ok=True)
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                 "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca, home=home)
        (home / f"{name}.index").touch()
        (home / f"{name}.cnf").write_text(
            f"[ca]\ndefault_ca=it\n[it]\ndatabase={home}/{name}.index\nrand_serial=yes\ndefault_md=sha256\n"
            f"new_certs_dir={home}\nunique_subject=no\ncopy_extensions=copy\npolicy=any\n[any]\ncommonName=supplied\n")
        self._config = home / f"{name}.cnf"

    def sign(self, file, names, start="20200101000000Z", end="20491231235959Z"):
        """{"certificate", "key", "ca"} of a new pair that names (SAN, DNS) these."""
        key, request, certificate = (self.home / f"{file}.{kind}" for kind in ("key", "csr", "crt"))
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                 "-subj", f"/CN={file}", "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
                 "-out", request, home=self.home)
        key.chmod(0o600)
        _openssl("ca", "-batch", "-notext", "-config", self._config, "-cert", self.ca, "-keyfile", self._key, "-in",
                 request, "-out", certificate, "-startdate", start, "-enddate", end, home=self.home)
        return {"certificate": certificate, "key": key, "ca": self.ca}


def tls(stand):
    """TLS between the peers. Wrong and expired certificates: the peer stays away, the log says why, az2 falls back on
    Kafka; a good one brings it back without a restart."""
    home = stand.home / "certificates"
    authority, stranger = Authority(home, "cell"), Authority(home, "stranger")
    good = {"a": authority.sign("a", ["gw-a"]), "b": authority.sign("b", ["az-b"]), "c": authority.sign("c", ["gw-c"])}
    bad = {"other": authority.sign("other", ["gw-x", "az-x"]), "stranger": stranger.sign("strange", ["gw-c"]),
           "expired": authority.sign("expired", ["gw-c"], end="20210101000000Z")}
    with stand.cell("tls", tls=good) as cell:
        cell.start()
        cell.load(*SINGLES)
        cell.wait_load(1000)
        kept = {kind: good["c"][kind].read_bytes() for kind in ("certificate", "key")}
        for why, files in bad.items():
            _with_certificate(cell, good["c"], files, why)
        for kind, content in kept.items():
            good["c"][kind].write_bytes(content)
        until(cell.is_whole, "a good certificate does not bring it back", 60)
        cell.wait_load(500)
        cell.settle(min_acked=1500)


def _with_certificate(cell, place, files, why):
    """Node c with these files, in a new session: nobody speaks with it."""
    marks = {node: len(node.log_lines()) for node in cell.nodes}
    for kind in ("certificate", "key"):
        place[kind].write_bytes(files[kind].read_bytes())
    for one in (cell.a, cell.b):
        cell.relays.reset(cell.link(one, cell.c))
    until(lambda: cell.c.metric("sluice_peer_up") == 0, f"{why}: still connected", 30)
    until(lambda: [node.metric("sluice_peer_up") for node in (cell.a, cell.b)] == [1, 1], f"{why}: not the two", 30)

    def told():
        return [line for node in (cell.a, cell.b) for line in node.log_lines()[marks[node]:]
                if "certificate" in line.lower() and "gw-c" in line]
    note(f"{why}: {until(told, f'{why}: no log line of gw-a or gw-b names gw-c and its certificate', 90)[0]}")
    before = cell.c.accepted()
    until(lambda: cell.c.accepted() > before + 20, f"{why}: it takes nothing although Kafka commits", 60)


SCENARIOS = {"partitions": partitions, "alone": alone, "kafka_cut": kafka_cut, "kafka_cut_one_way": kafka_cut_one_way,
             "peers_gone": peers_gone, "kafka_gone": kafka_gone, "tls": tls}
