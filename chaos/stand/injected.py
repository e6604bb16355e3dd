"""What is injected at the moment: a list that faults write and `status` shows. It lives as long as the cluster's
directory."""

import contextlib
import fcntl
import json
import os

from chaos.stand.places import replace


class Injected:
    def __init__(self, places):
        self._path = places.dir / "injected.json"

    @contextlib.contextmanager
    def _locked(self):
        with open(f"{self._path}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self.all()
            yield found
            replace(self._path, json.dumps(found, indent=1) + "\n")

    def all(self):
        """{key: {"zone": name or None, "text": …, "data": whatever the heal needs}}, in the order of injection."""
        if not os.path.exists(self._path):
            return {}
        return json.loads(self._path.read_text())

    def put(self, key, zone, text, data=None):
        with self._locked() as found:
            found[key] = {"zone": zone, "text": text, "data": data}

    def drop(self, key):
        """Forgets it; returns its data, None when there is no such fault."""
        with self._locked() as found:
            return (found.pop(key, None) or {}).get("data")

    def of(self, zone):
        return [each["text"] for each in self.all().values() if each["zone"] == zone]
