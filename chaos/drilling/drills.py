"""Drill files: Chaos Toolkit experiments, with what it has no word for in an extension called "sluice".

    "extensions": [{"name": "sluice",
                    "load": {"rate": 1500},           what the load client is told; without it there is no load
                    "criteria": {"rto_s_max": 15},    chaos/drilling/criteria.py; nothing lost or doubled is always one
                    "needs": ["iptables"],            capabilities (`chaos/cluster caps`) beyond those that the
                                                      cluster itself stands on; a missing one is SKIP
                    "warehouse": true,                the drill needs PostgreSQL and Kafka Connect
                    "minutes": 2,                     about how long it takes
                    "long": true,                     only with --long, or by name
                    "drain_s": 120}]                  how long Kafka may take to get the rest after the heal
"""

import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "drills"
_KEYS = {"name": str, "load": dict, "criteria": dict, "needs": list, "warehouse": bool, "minutes": (int, float),
         "long": bool, "drain_s": (int, float)}


class BadDrill(Exception):
    """The file is no drill; the text says what is wrong with it."""


class Drill:
    def __init__(self, name, experiment, path=None):
        self.name, self.experiment, self.path = name, experiment, path
        own = [each for each in experiment.get("extensions", []) if each.get("name") == "sluice"]
        if len(own) != 1:
            raise BadDrill(f"{name}: one extension must be called sluice")
        self.own = own[0]
        for key, value in self.own.items():
            if key not in _KEYS:
                raise BadDrill(f"{name}: the extension has an unknown key {key!r}")
            if not isinstance(value, _KEYS[key]):
                raise BadDrill(f"{name}: {key!r} in the extension is a {type(value).__name__}")

    title = property(lambda self: self.experiment.get("title", self.name))
    description = property(lambda self: self.experiment.get("description", ""))
    tags = property(lambda self: self.experiment.get("tags", []))
    load = property(lambda self: self.own.get("load"))
    criteria = property(lambda self: self.own.get("criteria", {}))
    needs = property(lambda self: self.own.get("needs", []))
    warehouse = property(lambda self: self.own.get("warehouse", False))
    minutes = property(lambda self: self.own.get("minutes", 0))
    long = property(lambda self: self.own.get("long", False))
    drain_s = property(lambda self: self.own.get("drain_s", 120))

    @property
    def runbook(self):
        """Relative to the top of the repository; None when there is none."""
        path = FOLDER.parents[1] / "docs" / "runbooks" / f"{self.name}.md"
        return str(path.relative_to(FOLDER.parents[1])) if path.exists() else None


def load(path):
    path = pathlib.Path(path)
    try:
        experiment = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadDrill(f"{path}: {error}") from error
    return Drill(path.stem, experiment, path)


def every(folder=FOLDER):
    return [load(path) for path in sorted(pathlib.Path(folder).glob("*.json"), key=lambda each: each.stem)]


def named(name, folder=FOLDER):
    """A drill by its name, or by the path of its file."""
    path = pathlib.Path(name) if name.endswith(".json") else pathlib.Path(folder) / f"{name}.json"
    if not path.exists():
        raise BadDrill(f"there is no drill {name!r}; chaos/drill --list names them")
    return load(path)
