"""Kafka Connect: fills in the templates of connect/, gives the worker's command line, talks to its REST interface."""

import json
import pathlib
import string
import urllib.error
import urllib.request

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from warehouse import dist

HERE = pathlib.Path(__file__).resolve().parent / "connect"
DLQ, CONTROL = "warehouse.dlq", "warehouse.iceberg.control"
HEAP_MIB = 256


class ConnectError(Exception):
    """The worker did not do what was asked; the text says what."""


def _template(text):
    # `$Value` of a Java class is nothing to fill in.
    return string.Template(text.replace("$Value", "$$Value"))


def _read(name):
    return (HERE / name).read_text("utf-8")


def connector(name, values):
    """{"name", "config"} of a connector, its ${...} filled in. ValueError names what is missing or too much; a value
    may hold any character."""
    wanted, given = settings(name), set(values)
    for words, keys in (("missing", wanted - given), ("not a setting of it", given - wanted)):
        if keys:
            raise ValueError(f"{name}: {words}: {', '.join(sorted(keys))}; it has {', '.join(sorted(wanted))}")
    filled = json.loads(_read(f"{name}.json"))
    filled["config"] = {key: _template(value).substitute(values) for key, value in filled["config"].items()}
    return filled


def settings(name):
    """What has to be filled in of a connector."""
    return set(_template(_read(f"{name}.json")).get_identifiers())


def write_configuration(directory, connectors, values):
    """Writes the worker's and the connectors' files. Returns their paths, the worker's first."""
    needed = ["jdbc", *(["iceberg"] if "raw-iceberg" in connectors else [])]
    plugins = ",".join(str(dist.plugin(each)) for each in needed)
    values = {**values, "dir": str(directory), "plugins": plugins}
    texts = {"worker.properties": _template(_read("worker.properties")).substitute(values)}
    for name in connectors:
        texts[f"{name}.json"] = json.dumps(connector(name, {key: values[key] for key in settings(name)}), indent=2)
    paths = []
    for name, text in texts.items():
        path = pathlib.Path(directory) / name
        path.touch(mode=0o600)  # passwords
        path.write_text(text)
        paths.append(path)
    return paths


def command(paths, directory, heap_mib=HEAP_MIB):
    return [dist.java(), "-Xms64m", f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=64m", "-Xss512k",
            "-XX:ReservedCodeCacheSize=64m", "-XX:MaxMetaspaceSize=192m", "-XX:-UsePerfData", "-Xshare:auto",
            "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true", f"-Djava.io.tmpdir={directory}",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", "-cp", f"{dist.worker()}/worker/*",
            "org.apache.kafka.connect.cli.ConnectStandalone", *map(str, paths)]


def make_topics(bootstrap, replication, timeout_s=30):
    """The dead-letter topic of the connectors and the control topic of Iceberg's; there already is fine."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})
    wanted = [NewTopic(name, 1, replication) for name in (DLQ, CONTROL)]
    for name, future in admin.create_topics(wanted, operation_timeout=timeout_s).items():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ConnectError(f"topic {name}: {error}") from error


def brokers(bootstrap, timeout_s=30):
    return len(AdminClient({"bootstrap.servers": bootstrap, "log_level": 3}).list_topics(timeout=timeout_s).brokers)


def ask(url, path, method="GET", timeout_s=5):
    request = urllib.request.Request(url + path, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return json.loads(answer.read() or b"null")
    except (OSError, ValueError) as error:
        raise ConnectError(f"{method} {path}: {error}") from error


def states(url):
    """{connector: [state of each task]}; a connector without tasks yet has an empty list."""
    found = ask(url, "/connectors?expand=status")
    return {name: [task["state"] for task in each["status"]["tasks"]] for name, each in found.items()}


def restart_failed(url):
    """Starts failed tasks again: a database that was away for longer than the sink's own retries. Returns how many."""
    count = 0
    for name, each in ask(url, "/connectors?expand=status").items():
        for task in each["status"]["tasks"]:
            if task["state"] == "FAILED":
                ask(url, f"/connectors/{name}/tasks/{task['id']}/restart", "POST")
                count += 1
    return count
