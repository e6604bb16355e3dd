"""`warehouse/warehouse connector`: whatever a value holds arrives whole, and what is wrong is named, secrets never."""

import json
import pathlib
import subprocess

from tests.lib.report import expect

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSWORD = 'a$b${topics}"c\\ d=@\u00e4'
WHOLE = {"tasks": "1", "topics": "t.a,t.b", "pg_host": "db", "pg_port": "5432", "database": "warehouse",
         "pg_user": "sink", "dlq": "d", "replication": "3"}
WRONG = {  # words besides what is right -> what must be said
    ("pg_password@/no/such/file",): "pg_password: ",
    ("hunter2",): "a setting is neither KEY=VALUE nor KEY@FILE",
    (): "raw-events: missing: pg_password; it has ",
    ("pg_password=hunter2", "tsks=2"): "raw-events: not a setting of it: tsks; it has ",
}


def _ask(words):
    return subprocess.run([ROOT / "warehouse/warehouse", "connector", "raw-events",
                           *(f"{key}={value}" for key, value in WHOLE.items()), *words],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)


def settings(directory):
    secret = pathlib.Path(directory) / "sink.password"
    secret.write_text(PASSWORD + "\n", "utf-8")
    for word in (f"pg_password@{secret}", f"pg_password={PASSWORD}"):
        done = _ask([word])
        expect(done.returncode == 0, done.stderr)
        config = json.loads(done.stdout)
        expect(config["connection.password"] == PASSWORD, f"{word.partition('@')[0]}: {config['connection.password']}")
        expect(config["connection.url"].startswith("jdbc:postgresql://db:5432/warehouse?"), config["connection.url"])
        expect(config["topics"] == "t.a,t.b", config["topics"])
        expect(config["transforms.wrap.type"].endswith("HoistField$Value"), config["transforms.wrap.type"])
    for words, said in WRONG.items():
        done = _ask(words)
        expect(done.returncode == 2 and said in done.stderr, f"{words}: exit {done.returncode}: {done.stderr}")
        expect("hunter2" not in done.stderr and not done.stdout, f"{words} gave away a secret: {done.stderr}")
