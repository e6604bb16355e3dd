#!/usr/bin/env python3
"""Breaks the spool in known ways, one at a time, in a copy, and demands that a test turns red.

Prints "ok NAME" or "not ok NAME - why" for each (the protocol of tests/suites). sabotage.py [NAME ...]
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ("copies", "disk", "disk_ops", "fault", "scan_fixture", "world")
LIBRARIES = ("-lcmocka", "-lisal", "-lpthread", "-lm")

# name, file, the test that has to see it, what is there, what is put in its place
SABOTAGES = (
    ("tell-before-sync", "spool/segment.c", "crash",
     "rc = storage->ops->fdatasync(storage->context, log->handle);\n"
     "    if (rc < 0)\n"
     "        return fail(log, err, rc, \"sync\");",
     ""),
    ("no-sync-of-the-header", "spool/segment.c", "crash",
     "rc = storage->ops->fdatasync(storage->context, log->handle);\n"
     "    if (rc < 0)\n"
     "        return fail(log, err, rc, \"sync of the header\");",
     ""),
    ("no-sync-of-the-stream-directory", "spool/segment.c", "crash",
     "rc = storage->ops->sync_directory(storage->context, log->dir);",
     ""),
    ("no-sync-of-the-spool-directory", "spool/incarnation.c", "crash",
     "rc = storage->ops->sync_directory(storage->context, spool->dir);",
     "rc = 0;"),
    ("next-stream-in-a-directory-not-synced", "spool/incarnation.c", "next_crash",
     "rc = storage->ops->sync_directory(storage->context, spool->dir);",
     "rc = 0;"),
    ("end-a-stream-without-saying-so", "spool/commit.c", "next",
     "bool sealed = seal(spool, true, &err);",
     "bool sealed = seal(spool, false, &err);"),
    ("go-on-after-the-change-failed", "spool/commit.c", "next_fault",
     "    else\n"
     "        fail_stream(spool, &err);\n"
     "    incarnation_taken(spool, changed);",
     "    incarnation_taken(spool, changed);"),
    ("keep-large-frames-of-the-old-stream", "spool/incarnation.c", "next",
     "recent_clear(&spool->recent); // its frames are found by seq and offset",
     ""),
    ("guess-the-predecessors-end", "spool/incarnation.c", "next",
     "follow(stream, newest, find_end(newest));",
     "follow(stream, newest, newest->end_seq);"),
    ("name-what-a-power-loss-may-take", "spool/incarnation.c", "next",
     "stream_settle(newest);",
     ""),
    ("name-a-stream-without-records", "spool/incarnation.c", "next",
     "end_seq > 0 ? before->id : before->predecessor",
     "before->id"),
    ("give-a-frame-behind-its-write", "spool/segment.c", "tap",
     "        if (log->on_frame != NULL && frame->kind == FRAME_DATA)\n"
     "            log->on_frame(log->user, image);\n",
     ""),
    ("delete-before-the-base-is-stored", "spool/retain.c", "crash",
     "if (!progress_store(stream, &err))",
     "if (false)"),
    ("use-a-ready-file-that-carries-a-header", "spool/prepare.c", "crash",
     "got != SPOOL_BLOCK || memcmp(block, zeros, SPOOL_BLOCK) != 0",
     "got != SPOOL_BLOCK"),
    ("replace-a-file-without-sync", "spool/files.c", "crash",
     "rc = storage->ops->fdatasync(storage->context, handle);",
     "rc = 0;"),
    ("retry-a-failed-sync", "spool/segment.c", "fault",
     "    if (rc < 0)\n"
     "        return fail(log, err, rc, \"sync\");",
     "    if (rc < 0)\n"
     "        rc = storage->ops->fdatasync(storage->context, log->handle);\n"
     "    if (rc < 0)\n"
     "        return fail(log, err, rc, \"sync\");"),
    ("go-on-after-a-failed-write", "spool/commit.c", "fault",
     "atomic_store(&spool->failed, true);",
     ""),
    ("forget-to-fail-the-queue", "spool/commit.c", "fault",
     "    fail_waiting(spool);\n"
     "    tell_failure(spool);\n"
     "}",
     "    tell_failure(spool);\n"
     "}"),
    ("take-a-body-unverified", "spool/scan.c", "recover",
     "!frame_body_verify(header, frame_bytes(frame))",
     "false"),
    ("ignore-the-chain", "spool/scan.c", "misplaced",
     "!scanner->chain_known || header->previous_crc == scanner->chain",
     "true"),
    ("ignore-the-offset", "spool/scan.c", "misplaced",
     " && look->header.offset == scanner->offset",
     ""),
    ("stop-at-the-first-bad-frame", "spool/scan.c", "recover",
     "facts->later = look->search.later;",
     "facts->later = false;"),
    ("pass-over-a-complete-bad-tail", "spool/recover.c", "recover",
     "{.name = \"the last frame, completely written\", .verdict = VERDICT_DAMAGED_TAIL}",
     "{.name = \"the last frame, completely written\", .verdict = VERDICT_TORN_TAIL}"),
    ("delete-what-is-only-committed", "spool/retain.c", "retain",
     "verified = lane->stored.through;",
     "verified = lane->committed;"),
    ("delete-damaged-files", "spool/retain.c", "damage",
     "if (segment->damaged)\n"
     "            continue;",
     ""),
    ("delete-without-keeping-ids", "spool/retain.c", "crash",
     "bool kept = ids_keep(stream, &segment, last_seq, now, &err);",
     "bool kept = true;"),
    ("keep-ids-without-sync", "spool/ids_keep.c", "crash",
     "writer->rc = storage->ops->fdatasync(storage->context, writer->handle);",
     "writer->rc = 0;"),
    ("take-ids-unverified", "spool/ids_read.c", "ids",
     "frame_body_verify(&place->header, body) && ",
     ""),
    ("seal-without-the-last-ids", "spool/segment.c", "ids",
     "if (!put_ids(log, true, 0, wall_ns, err))",
     "if (false)"),
    ("ids-under-any-key", "spool/ids_read.c", "ids",
     "else if (!key_is_ours(&reading))",
     "else if (!key_is_ours(&reading) && false)"),
    ("count-a-record-for-damaged-ids", "spool/scan.c", "recover",
     "facts->no_record = ",
     "facts->no_record = false && "),
    ("admit-without-room", "spool/figures.c", "retain",
     "if (!whole || current + ready < needed + figures_reserve(spool))\n"
     "            return SPOOL_FULL;",
     ""),
    ("prepare-beyond-the-budget", "spool/keeper.c", "retain",
     "while (budget_left(spool) < size_bytes + (need->for_copies ? spool->segment_bytes : 0))",
     "while (false)"),
    ("store-a-copy-before-its-base", "spool/grow.c", "replica_crash",
     "if (!progress_store(growth->stream, err))",
     "if (false)"),
    ("no-sync-of-a-copy-s-directory", "spool/grow.c", "replica_crash",
     "rc = storage->ops->sync_directory(storage->context, spool->dir);",
     "rc = 0;"),
    ("no-sync-of-the-marks-directory", "spool/marks.c", "replica_crash",
     "rc = storage->ops->sync_directory(storage->context, spool->dir);",
     "rc = 0;"),
    ("take-a-kill-for-damage", "spool/scan.c", "replica_crash",
     "*goes_on = next->first_seq == scanner->expected",
     "*goes_on = false && next->first_seq == scanner->expected"),
    ("go-on-behind-anything", "spool/scan.c", "recover",
     "? scanner->chain_known && header.previous_frame_crc == scanner->chain",
     "? true"),
    ("delete-copies-untrimmed", "spool/retain.c", "replica",
     "copy ? stream->base_seq - 1 :",
     "copy ? stream->end_seq :"),
    ("copies-before-the-own-stream", "spool/keeper.c", "replica",
     "size_bytes + (need->for_copies ? spool->segment_bytes : 0)",
     "size_bytes"),
    ("count-a-record-twice", "spool/notes.c", "progress",
     "lane->committed_records += records;",
     "lane->committed_records += 2 * records;"),
)


def compile_to(root, source, target):
    compiler = ["ccache", "gcc"] if shutil.which("ccache") else ["gcc"]
    flags = ("-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-w", f"-I{root}")
    subprocess.run([*compiler, *flags, "-c", str(source), "-o", str(target)], check=True)


def sources():
    yield from sorted(ROOT.glob("spool/*.c"))
    yield from (ROOT / "base" / f"{name}.c" for name in ("error", "log", "crc32c", "histogram"))
    yield from (ROOT / "tests/spool" / f"{name}.c" for name in SUPPORT)


def object_of(path):
    return str(path.relative_to(ROOT)).replace("/", "_") + ".o"


def passes(build, objects, test):
    """Whether the test is green with these objects. Too long is red: a spool that hangs is broken."""
    binary = build / f"{test}_test"
    linked = [*map(str, objects), str(build / f"{test}_test.o"), "-o", str(binary), *LIBRARIES]
    subprocess.run(["gcc", *linked], check=True)
    try:
        return subprocess.run([str(binary)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120,
                              check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def run(sabotage, copy, build, objects):
    """None when a test saw it, or what is wrong."""
    name, file, test, there, instead = sabotage
    text = (ROOT / file).read_text()
    if text.count(there) != 1:
        return f"{file} holds what is to be broken {text.count(there)} times"
    (copy / file).write_text(text.replace(there, instead))
    broken = build / f"{name}.o"
    try:
        compile_to(copy, copy / file, broken)
    finally:
        (copy / file).write_text(text)
    changed = [broken if path.name == object_of(ROOT / file) else path for path in objects]
    return f"{test}_test stayed green" if passes(build, changed, test) else None


def main(names):
    with tempfile.TemporaryDirectory() as folder:
        copy, build = Path(folder) / "tree", Path(folder) / "build"
        build.mkdir()
        for part in ("base", "spool", "tests/spool"):
            shutil.copytree(ROOT / part, copy / part)
        objects = []
        for source in sources():
            objects.append(build / object_of(source))
            compile_to(copy, copy / source.relative_to(ROOT), objects[-1])
        for test in sorted({sabotage[2] for sabotage in SABOTAGES}):
            compile_to(copy, copy / "tests/spool" / f"{test}_test.c", build / f"{test}_test.o")
            if not passes(build, objects, test):
                print(f"not ok unbroken-{test} - red without any sabotage", flush=True)
                return 1
        failed = False
        for sabotage in SABOTAGES:
            if names and sabotage[0] not in names:
                continue
            why = run(sabotage, copy, build, objects)
            failed |= why is not None
            print(f"not ok {sabotage[0]} - {why}" if why else f"ok {sabotage[0]}", flush=True)
        return failed


if __name__ == "__main__":
    os.environ.pop("CFLAGS", None)
    sys.exit(main(sys.argv[1:]))
