"""Chaos: a three-zone cluster on one machine, faults, drills and their verdicts. See README.md."""
