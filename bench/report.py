"""Tables for people, JSON for programs, and notes of the machine without which no figure means anything."""

import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess


def _output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def machine(root, spool_directory):
    """What the figures were measured on."""
    cpu = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    disk = _output("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "--target", str(spool_directory)).split()
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _output("git", "-C", str(root), "describe", "--always", "--dirty"),
        "cores": os.cpu_count(),
        "cpu": cpu,
        "memory_gib": round(memory_kib / 1048576, 1),
        "kernel": platform.release(),
        "disk": " ".join(disk),
        "h2load": _output("h2load", "--version"),
        "load_before": os.getloadavg()[0],
    }


def median(runs, field):
    """The median of a field over the runs that have it; None when none has."""
    values = [run[field] for run in runs if run.get(field) is not None]
    return statistics.median(values) if values else None


def number(value, digits=0):
    return "–" if value is None else f"{value:,.{digits}f}"


def table(head, rows):
    """A Markdown table, its columns padded so that it reads well on a terminal too."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells):
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def spread(runs, field):
    values = [run[field] for run in runs if run.get(field) is not None]
    return f"{number(min(values))}…{number(max(values))}" if len(values) > 1 else ""


def markdown(results):
    """All of it, for docs/performance.md."""
    about = results["machine"]
    parts = [f"{about['cores']} cores, {about['cpu']}, {about['memory_gib']} GiB, Linux {about['kernel']}; spool on "
             f"{about['disk']}; commit {about['commit']}, {about['time']}. {results['settings']}"]
    for section in results["sections"]:
        parts.append(f"### {section['title']}\n\n{section['note']}\n\n{table(section['head'], section['rows'])}")
    return "\n\n".join(parts) + "\n"


def write(results, directory):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (results["machine"]["time"].replace(":", "").replace("+0000", "Z") + ".json")
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return path
