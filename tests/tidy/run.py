#!/usr/bin/env python3
"""Runs the house rules (rules.py) over the tree: one verdict a rule, its problems above. Optional: names of rules."""
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import rules  # noqa: E402
from tree import Tree  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def main():
    tree = Tree.of_git(ROOT)
    chosen = sys.argv[1:]
    red = False
    for rule in rules.RULES:
        name = rule.__name__
        if chosen and name not in chosen:
            continue
        problems = list(rule(tree))
        for problem in problems:
            print(f"    {problem}")
        if problems:
            red = True
            print(f"not ok {name} - {len(problems)} breach(es) of: {rule.__doc__}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
