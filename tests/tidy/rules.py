"""The house rules. A rule takes a Tree and yields problems: "path:line: what is wrong"."""
import ast
import os
import re
import shutil
import subprocess

from tree import without_comments_and_strings

RULES = []
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 120

# Code that runs in production, in the direction of dependencies: a folder includes itself and what stands before it.
LAYERS = ("base", "spool", "dedupe", "ha", "produce", "gateway", "cli")

# Header of a library -> where it may be included. Each library stays behind one interface.
LIBRARY_HOMES = {
    r"librdkafka/|rdkafka": r"produce/|tests/|bench/",
    r"h2o\.h|h2o/": r"gateway/http[^/]*$|bench/|tests/",
    r"simdjson": r"gateway/json[^/]*$|bench/|tests/",
    r"yaml\.h": r"gateway/config[^/]*$|tests/",
    # Nothing of libevent that makes locks: its objects belong to one thread.
    r"event2/(?!thread)": r"ha/(peers|cell)[^/]*$|tests/",
    r"event2/thread": r"(?!)",
}

# In pieces, so that this file does not break its own rule.
OPEN_WORDS = ("TO" "DO", "FIX" "ME", "X" "XX", "HA" "CK", "not imple" "mented")

# Call -> what to use. `calls` are looked for in C with comments and strings removed.
BANNED_CALLS = {
    "strcpy": "snprintf or memcpy", "stpcpy": "snprintf or memcpy", "strcat": "snprintf", "strncpy": "memcpy",
    "strncat": "snprintf", "sprintf": "snprintf", "vsprintf": "vsnprintf", "gets": "getline", "atoi": "strtol",
    "atol": "strtol", "atoll": "strtoll", "atof": "strtod", "rand": "getrandom", "srand": "getrandom",
    "strtok": "strtok_r", "alloca": "the heap", "localtime": "localtime_r", "gmtime": "gmtime_r", "ctime": "strftime",
    "asctime": "strftime", "tmpnam": "mkstemp", "mktemp": "mkstemp", "signal": "sigaction",
    "setjmp": "an error code", "longjmp": "an error code",
}
BANNED_IN_PRODUCT = {
    "sleep": "a condition to wait for", "usleep": "a condition to wait for", "assert": "sl_assert",
    "abort": "sl_assert", "system": "posix_spawn",
}

# Places of one machine, and hosts of package registries: neither belongs into a tree that others clone.
PLACES = [re.compile(pattern) for pattern in (
    r"(?<![\w.~$}-])/(?:work|farm|root|Users|home/\w+)/\w",
    r"\b(?:deb|security|snapshot|ftp)[.]debian\b",
    r"\brepo\d?[.]maven\b|\bmaven[.]org\b|\bpypi[.]org\b|\bnpmjs[.]\w|\bcrates[.]io\b|\bproxy[.]golang\b",
)]


def rule(function):
    RULES.append(function)
    return function


def run_tool(command, root):
    """Output lines of a checker that failed; nothing when it was content."""
    if shutil.which(command[0]) is None:
        yield f"{command[0]} is not installed (scripts/setup test)"
        return
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        yield from done.stdout.splitlines() or [f"{command[0]} exited with {done.returncode}"]


def numbered(text):
    return enumerate(text.splitlines(), 1)


@rule
def formatting(tree):
    """clang-format has nothing to change"""
    if not tree.c:
        return
    places = {}  # file -> the first place
    for line in run_tool(["clang-format", "--dry-run", "-Werror", *tree.c], tree.root):
        if match := re.match(r"([^:]+):(\d+):\d+: (?:error|warning)", line):
            places.setdefault(match.group(1), f"{match.group(1)}:{match.group(2)}: clang-format -i would change it")
        elif ": " in line and not places:
            yield line
    yield from places.values()


@rule
def file_length(tree):
    """one subject a file, at most 600 lines"""
    for path in tree.code:
        lines = tree.files[path].count("\n")
        if lines > FILE_LINES_MAX:
            yield f"{path}:1: {lines} lines; {FILE_LINES_MAX} is the most"


@rule
def line_length(tree):
    """at most 120 columns"""
    for path in tree.code:
        for number, line in numbered(tree.files[path]):
            if len(line) > COLUMNS_MAX and "://" not in line:
                yield f"{path}:{number}: {len(line)} columns"


def c_functions(text):
    """(first line, line count) of every function. clang-format puts a function's braces alone into column 0, and of
    other things only those of a namespace, a class or extern "C" in C++."""
    start = None
    header = None
    for number, line in numbered(text):
        if line == "{" and start is None:
            if header and not re.match(r"(namespace|class|struct|extern)\b", header[1]):
                start = header[0]
        elif line.startswith("}"):
            if start is not None:
                yield start, number - start + 1
            start = header = None
        elif start is None and re.match(r"[A-Za-z_]", line):
            # The first line of a declaration; lines that continue it are indented.
            header = (number, line)


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1


@rule
def function_length(tree):
    """a function fits a screen, 70 lines"""
    for path in (*tree.c, *tree.python):
        functions = python_functions if path in tree.python else c_functions
        for line, count in functions(tree.files[path]):
            if count > FUNCTION_LINES_MAX:
                yield f"{path}:{line}: a function of {count} lines; {FUNCTION_LINES_MAX} is the most"


@rule
def open_words(tree):
    """nothing is left open"""
    pattern = re.compile(r"\b(" + "|".join(OPEN_WORDS) + r")\b")
    for path in tree.prose_and_code:
        for number, line in numbered(tree.files[path]):
            if match := pattern.search(line):
                yield f"{path}:{number}: {match.group(1)}"


def is_product(path):
    return path.split("/", 1)[0] in LAYERS


@rule
def banned_calls(tree):
    """no call that overruns, races, or is retried blindly"""
    for path in tree.c:
        banned = {**BANNED_CALLS, **(BANNED_IN_PRODUCT if is_product(path) else {})}
        # base/error.c is where sl_assert itself ends the process.
        if path.startswith("base/error."):
            banned.pop("abort", None)
        pattern = re.compile(r"(?<![\w.>])(" + "|".join(banned) + r")\s*\(")
        for number, line in numbered(without_comments_and_strings(tree.files[path])):
            for match in pattern.finditer(line):
                yield f"{path}:{number}: {match.group(1)}(): use {banned[match.group(1)]}"


def includes(text):
    for number, line in numbered(text):
        if match := re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line):
            yield number, match.group(1) == '"', match.group(2)


@rule
def layering(tree):
    """base < spool < dedupe < ha < produce < gateway < cli; each library behind its one interface"""
    for path in tree.c:
        folder = path.split("/", 1)[0]
        for number, own, header in includes(tree.files[path]):
            for library, home in LIBRARY_HOMES.items():
                if not own and re.match(library, header) and not re.match(home, path):
                    yield f"{path}:{number}: <{header}> belongs behind an interface, only in {home}"
            if not own:
                continue
            if header not in tree.files and not header.endswith((".inc", "_data.h")):
                yield f"{path}:{number}: \"{header}\" is no file of this tree (paths are from the top)"
            target = header.split("/", 1)[0]
            if folder in LAYERS and (target not in LAYERS or LAYERS.index(target) > LAYERS.index(folder)):
                yield f"{path}:{number}: {folder}/ must not include {target}/"


@rule
def internal_headers(tree):
    """a *_internal.h is its own folder's (and its tests')"""
    for path in tree.c:
        for number, own, header in includes(tree.files[path]):
            folder = os.path.dirname(header)
            if own and header.endswith("_internal.h") and not path.startswith((folder + "/", "tests/")):
                yield f"{path}:{number}: {header} is internal to {folder}/"


@rule
def header_guards(tree):
    """guards name the path"""
    for path in tree.pick(".h"):
        guard = "SLUICE_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper()
        if f"#ifndef {guard}\n#define {guard}\n" not in tree.files[path]:
            yield f"{path}:1: the include guard is not {guard}"


@rule
def thread_notes(tree):
    """a public header says who may call from which thread"""
    for path in tree.pick(".h"):
        if not is_product(path) or path.endswith("_internal.h"):
            continue
        comments = "\n".join(re.findall(r"//[^\n]*", tree.files[path]))
        if not re.search(r"\bthread", comments, re.IGNORECASE):
            yield f"{path}:1: says nothing about threads"


@rule
def folder_readmes(tree):
    """every source folder has a README.md that starts with its invariants"""
    folders = {os.path.dirname(path) for path in tree.code}
    for folder in sorted(folders):
        if not folder or folder.startswith("."):
            continue
        readme = f"{folder}/README.md"
        if readme not in tree.files:
            yield f"{readme}:1: missing"
        elif "invariant" not in "\n".join(tree.files[readme].splitlines()[:15]).lower():
            yield f"{readme}:1: its first lines are not the invariants"


@rule
def places(tree):
    """no path of one machine, no host of a package registry"""
    for path in tree.files:
        for number, line in numbered(tree.files[path]):
            for pattern in PLACES:
                if match := pattern.search(line):
                    yield f"{path}:{number}: {match.group(0)}"


@rule
def blanks(tree):
    """no tabs, no blanks at a line's end, a newline at the file's end"""
    for path in sorted({*tree.code, *tree.markdown, *tree.pick("meson.build")}):
        text = tree.files[path]
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line:
                yield f"{path}:{number}: tab"
            if line != line.rstrip():
                yield f"{path}:{number}: blanks at the end"
        if text and not text.endswith("\n"):
            yield f"{path}: no newline at the end"


def anchors(text):
    """The anchors that a renderer gives a page's headings."""
    found = set()
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if not fenced and (match := re.match(r"#+\s+(.*)", line)):
            slug = re.sub(r"[^\w\- ]", "", match.group(1).strip().lower()).replace(" ", "-")
            found.add(slug)
    return found


@rule
def links(tree):
    """links within the documents lead somewhere"""
    folders = {parent for path in tree.files for parent in parents(path)}
    for path in tree.markdown:
        prose = re.sub(r"```.*?```|`[^`\n]*`", blanked, tree.files[path], flags=re.DOTALL)
        for match in re.finditer(r"\]\(([^)\s]+)\)", prose):
            target, _, anchor = match.group(1).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            number = prose.count("\n", 0, match.start()) + 1
            goal = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
            if goal not in tree.files and goal not in folders:
                yield f"{path}:{number}: {match.group(1)} leads nowhere"
            elif anchor and goal.endswith(".md") and anchor not in anchors(tree.files[goal]):
                yield f"{path}:{number}: {goal} has no heading #{anchor}"


def blanked(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def parents(path):
    while path := os.path.dirname(path):
        yield path


@rule
def shell_scripts(tree):
    """shellcheck is content"""
    if tree.shell:
        yield from run_tool(["shellcheck", "-x", "-P", "SCRIPTDIR", "-f", "gcc", *tree.shell], tree.root)


@rule
def python_compiles(tree):
    """every Python file compiles"""
    for path in tree.python:
        try:
            compile(tree.files[path], path, "exec", dont_inherit=True)
        except SyntaxError as error:
            yield f"{path}:{error.lineno}: {error.msg}"


@rule
def executables(tree):
    """what starts with #! can be executed"""
    for path in tree.scripts:
        if not os.access(tree.root / path, os.X_OK):
            yield f"{path}:1: has a #! line and no execute permission"
