#!/usr/bin/env python3
"""Breaks the window in known ways, one at a time, in a copy, and demands that a test turns red.

Prints "ok NAME" or "not ok NAME - why" for each (the protocol of tests/suites). sabotage.py [NAME ...]
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WINDOW = ("claim", "figures", "fill", "filter", "generation", "origin", "sweep", "table", "window")
TESTS = {"window": ("-lcmocka",), "generation": ("-lcmocka",), "fill": ("-lcmocka",), "model": ()}
LIBRARIES = ("-lpthread",)
# Chance finds what depends on two threads meeting: then it gets this many tries with another seed each.
SEEDS = 6

# name, file, the test that has to see it, what is there, what is put in its place
SABOTAGES = (
    ("skip-the-second-look", "claim.c", "model",
     "enum search search = table_find(dedupe, place, slot, hit);",
     "enum search search = SEARCH_NONE;"),
    ("ignore-who-is-reserving", "claim.c", "model",
     "if (search == SEARCH_NONE) {\n            uint64_t reserved",
     "if (search != SEARCH_FOUND) {\n            uint64_t reserved"),
    ("publish-although-killed", "claim.c", "model",
     "if (atomic_compare_exchange_strong(w0, &reserved, word))\n                return ENTER_DONE;",
     "(void)reserved;\n            atomic_store(w0, word);\n            return ENTER_DONE;"),
    ("compare-the-tag-only", "table.c", "window",
     "return w1 == place->w1 && !expired ?",
     "return !expired ?"),
    ("compare-the-second-word-only", "table.c", "model",
     "unsigned fits = scan_tags(place->sets[choice]->w0, place->want, TAG_SHIFT);\n"
     "        if (__builtin_expect(fits != 0, false)) {",
     "unsigned fits = 0x5555;\n        if (__builtin_expect(fits != 0, false)) {",
     "if (!same_tag(word, place->want))\n            return SEARCH_NONE;",
     ""),
    ("drop-four-bits-of-the-tag", "table.c", "window",
     "unsigned fits = scan_tags(place->sets[choice]->w0, place->want, TAG_SHIFT);\n"
     "        if (__builtin_expect",
     "unsigned fits = scan_tags(place->sets[choice]->w0, place->want >> (TAG_SHIFT + 4) << (TAG_SHIFT + 4),\n"
     "        TAG_SHIFT + 4);\n"
     "        if (__builtin_expect",
     "if (!same_tag(word, place->want))\n            return SEARCH_NONE;",
     "if ((word ^ place->want) >> (TAG_SHIFT + 4) != 0)\n            return SEARCH_NONE;"),
    ("leave-out-the-third-choice", "table.c", "model",
     "for (unsigned choice = 0; choice < CHOICES; choice++) {\n"
     "        unsigned fits = scan_tags(place->sets[choice]->w0, place->want, TAG_SHIFT);\n"
     "        if (__builtin_expect",
     "for (unsigned choice = 0; choice < CHOICES - 1; choice++) {\n"
     "        unsigned fits = scan_tags(place->sets[choice]->w0, place->want, TAG_SHIFT);\n"
     "        if (__builtin_expect"),
    ("evict-open-claims", "table.c", "window",
     "if (state_of(word) != SLOT_DURABLE)\n                continue;",
     "if (state_of(word) != SLOT_DURABLE && state_of(word) != SLOT_PENDING)\n                continue;"),
    ("evict-the-youngest", "table.c", "window",
     "uint64_t oldest = UINT64_MAX;", "uint64_t oldest = 0;",
     "if (number >= oldest)", "if (number < oldest)",
     "if (oldest == UINT64_MAX)", "if (oldest == 0)"),
    ("evict-in-silence", "claim.c", "model",
     "if (evicts != 0)\n            generation_evicts(dedupe, evicts);",
     ""),
    ("say-it-of-closed-generations-only", "generation.c", "model",
     "raise_number(&dedupe->evicted_open, number + 1);",
     "(void)0;"),
    ("find-no-room-in-silence", "claim.c", "window",
     "coverage_raise(&dedupe->evicted_until_ns, stripes_latest(dedupe, now_wall_ns));",
     "(void)now_wall_ns;"),
    ("no-bits-in-the-filter", "claim.c", "window",
     "// Before it is published: what the filter does not hold is taken for new.\n"
     "    filter_set(dedupe, place->w1, atomic_load(&generation_of(dedupe, newcomer->number)->filter));",
     ""),
    ("clear-the-filter-too-soon", "sweep.c", "generation",
     "atomic_load(&dedupe->filter_last[filter]) < swept)",
     "swept > 0)"),
    ("settle-without-the-filter", "claim.c", "generation",
     "if (((number << SLOT_BITS) ^ claim->slot) >> SLOT_BITS != 0) {",
     "if (false) {"),
    ("wrap-without-the-sweep", "generation.c", "generation",
     "bool swept = number + 1 - atomic_load(&dedupe->swept) < RING;",
     "bool swept = true;"),
    ("sweep-what-is-open", "sweep.c", "generation",
     "if (state_of(word) != SLOT_DURABLE || number_of",
     "if (state_of(word) == SLOT_EMPTY || number_of"),
    ("expire-too-soon", "generation.c", "generation",
     "now_ns - dedupe->window_ns >= atomic_load(",
     "now_ns - dedupe->window_ns / 2 >= atomic_load("),
    ("end-before-the-last-claim", "generation.c", "model",
     "atomic_store(&generation_of(dedupe, number)->end_ns, end_ns);",
     "atomic_store(&generation_of(dedupe, number)->end_ns, end_ns - 5);"),
    ("a-seq-out-of-range", "generation.c", "generation",
     "stream >> STREAM_ANCHOR_BITS == owner && seq - base < SEQ_RANGE",
     "stream >> STREAM_ANCHOR_BITS == owner"),
    ("another-origins-range", "generation.c", "generation",
     "stream >> STREAM_ANCHOR_BITS == owner && seq - base < SEQ_RANGE",
     "seq - base < SEQ_RANGE"),
    ("forget-what-is-settled", "claim.c", "window",
     "if (claim->word == 0 || atomic_load(w0) != claim->word)",
     "if (claim->word == 0)"),
    ("lose-the-payload", "claim.c", "window",
     "((hit->w2 ^ payload_hash) & HASH_MASK) == 0 ?",
     "((hit->w2 ^ payload_hash) & HASH_MASK << 8) == 0 ?"),
    ("fill-in-what-is-there", "fill.c", "fill",
     "if (__builtin_expect(old != 0, false))",
     "if (false)"),
    ("fill-and-leave-out-what-finds-no-room", "fill.c", "fill",
     "        enter_chosen(filler, item);\n    else\n        go_by_insert(filler, item);",
     "        enter_chosen(filler, item);"),
    ("fill-into-one-slot", "fill.c", "fill",
     "atomic_store_explicit(&filling->taken[sets[best]], (uint8_t)(least + 1), memory_order_relaxed);",
     "",
     "unsigned way = (item->slot + i) % WAYS;\n        uint64_t empty = 0;",
     "unsigned way = (item->slot + i) % WAYS;\n        uint64_t empty = atomic_load(&set->w0[way]);"),
    ("fill-and-end-with-the-restart", "fill.c", "fill",
     "(void)generation_rotate(dedupe, atomic_load(&dedupe->current), atomic_load(&dedupe->clock_ns));\n    coverage",
     "coverage"),
)


def compile_to(root, source, target):
    compiler = ["ccache", "gcc"] if shutil.which("ccache") else ["gcc"]
    flags = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-w", f"-I{root}")
    subprocess.run([*compiler, *flags, "-c", str(source), "-o", str(target)], check=True)


def build_tests(copy, build):
    """Compiles the whole copy; ccache makes what did not change cheap."""
    common = []
    for path in (*(f"base/{name}" for name in ("error", "log")), *(f"dedupe/{name}" for name in WINDOW),
                 "tests/dedupe/model"):
        common.append(build / (path.replace("/", "_") + ".o"))
        compile_to(copy, copy / f"{path}.c", common[-1])
    for test, libraries in TESTS.items():
        own = build / f"{test}_test.o"
        compile_to(copy, copy / f"tests/dedupe/{test}_test.c", own)
        linked = [*map(str, common), str(own), "-o", str(build / f"{test}_test"), *libraries, *LIBRARIES]
        subprocess.run(["gcc", *linked], check=True)


def passes(build, test):
    """Whether the test is green. Too long is red: a window in which somebody waits is broken."""
    for seed in range(1, SEEDS + 1 if test == "model" else 2):
        environment = {**os.environ, "DEDUPE_MODEL_SEED": str(seed), "DEDUPE_MODEL_OPERATIONS": "1500000"}
        try:
            if subprocess.run([str(build / f"{test}_test")], env=environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=300, check=False).returncode != 0:
                return False
        except subprocess.TimeoutExpired:
            return False
    return True


def run(sabotage, copy, build):
    """None when a test saw it, or what is wrong."""
    _, file, test, *changes = sabotage
    path = copy / "dedupe" / file
    whole = text = (ROOT / "dedupe" / file).read_text()
    for there, instead in zip(changes[::2], changes[1::2]):
        if text.count(there) != 1:
            return f"dedupe/{file} holds what is to be broken {text.count(there)} times"
        text = text.replace(there, instead)
    path.write_text(text)
    try:
        build_tests(copy, build)
    finally:
        path.write_text(whole)
    return f"{test}_test stayed green" if passes(build, test) else None


def main(names):
    with tempfile.TemporaryDirectory() as folder:
        copy, build = Path(folder) / "tree", Path(folder) / "build"
        build.mkdir()
        for part in ("base", "dedupe", "tests/dedupe"):
            shutil.copytree(ROOT / part, copy / part)
        build_tests(copy, build)
        for test in TESTS:
            if not passes(build, test):
                print(f"not ok unbroken-{test} - red without any sabotage", flush=True)
                return 1
        failed = False
        for sabotage in SABOTAGES:
            if names and sabotage[0] not in names:
                continue
            why = run(sabotage, copy, build)
            failed |= why is not None
            print(f"not ok {sabotage[0]} - {why}" if why else f"ok {sabotage[0]}", flush=True)
        return failed


if __name__ == "__main__":
    os.environ.pop("CFLAGS", None)
    sys.exit(main(sys.argv[1:]))
