#!/usr/bin/env python3
"""Each house rule against a small tree that breaks it and one that keeps it: a rule that cannot go red is no rule."""
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import rules  # noqa: E402
from tree import Tree  # noqa: E402

OPEN_WORD = "TO" "DO"
MACHINE_PATH = "/" "work/main"
REGISTRY = "deb." "debian.org"

# rule -> (files that break it, files that keep it)
CASES = {
    "formatting": ({"base/a.c": "int  a;\n"}, {"base/a.c": "int a;\n"}),
    "file_length": ({"base/a.c": "int a;\n" * 601}, {"base/a.c": "int a;\n" * 600}),
    "line_length": ({"a.py": "#" * 121 + "\n"}, {"a.py": "#" * 120 + "\n"}),
    "function_length": ({"base/a.c": "int f(int a,\n      int b)\n{\n" + "    b++;\n" * 67 + "}\n"},
                        {"base/a.c": "int f(int a,\n      int b)\n{\n" + "    b++;\n" * 66 + "}\n"}),
    "open_words": ({"base/a.c": f"// {OPEN_WORD}: later\n"}, {"base/a.c": "// XXXX is not the word\n"}),
    "banned_calls": ({"base/a.c": "int f(void)\n{\n    return atoi(x);\n}\n"},
                     {"base/a.c": '// atoi(x)\nint f(void)\n{\n    return my_atoi("atoi(", a.atoi(1));\n}\n'}),
    "layering": ({"spool/a.c": '#include "gateway/x.h"\n', "gateway/x.h": ""},
                 {"gateway/a.c": '#include "spool/x.h"\n', "spool/x.h": ""}),
    "internal_headers": ({"gateway/a.c": '#include "spool/x_internal.h"\n'},
                         {"spool/a.c": '#include "spool/x_internal.h"\n'}),
    "header_guards": ({"base/a.h": "#ifndef A_H\n#define A_H\n#endif\n"},
                      {"base/a.h": "#ifndef SLUICE_BASE_A_H\n#define SLUICE_BASE_A_H\n#endif\n"}),
    "thread_notes": ({"base/a.h": "int thread;\n"}, {"base/a.h": "// Any thread.\nint a;\n"}),
    "folder_readmes": ({"base/a.c": "", "base/README.md": "# base\n"},
                       {"base/a.c": "", "base/README.md": "# base\n\nInvariants:\n"}),
    "places": ({"a.txt": f"see {MACHINE_PATH}\n"}, {"a.txt": "see framework/main and /var/lib/sluice\n"}),
    "blanks": ({"base/a.c": "int a; \n"}, {"base/a.c": "int a;\n"}),
    "links": ({"README.md": "[a](docs/no.md)\n"},
              {"README.md": "# Top it\n[a](docs/a.md#one-two) [b](#top-it) [c](docs/)\n", "docs/a.md": "## One two\n"}),
    "shell_scripts": ({"a.sh": "#!/bin/sh\nrm $1/*\n"}, {"a.sh": '#!/bin/sh\nrm "${1:?}"\n'}),
    "python_compiles": ({"a.py": "def\n"}, {"a.py": "a = 1\n"}),
    "executables": ({"a.sh": "#!/bin/sh\n"}, {"a.sh": "true\n"}),
}


def breaches(name, files):
    with tempfile.TemporaryDirectory(prefix="sluice-tidy-") as root:
        for path, text in files.items():
            Path(root, path).parent.mkdir(parents=True, exist_ok=True)
            Path(root, path).write_text(text)
        shutil.copy(Path(__file__).parents[2] / ".clang-format", root)
        return list(getattr(rules, name)(Tree(root, files)))


class RulesTest(unittest.TestCase):
    def test_every_rule_has_a_case(self):
        self.assertEqual(set(CASES), {rule.__name__ for rule in rules.RULES})

    def test_breaches_are_seen(self):
        for name, (bad, _) in CASES.items():
            with self.subTest(name):
                self.assertEqual(len(breaches(name, bad)), 1)

    def test_what_keeps_the_rule_is_left_alone(self):
        for name, (_, good) in CASES.items():
            with self.subTest(name):
                self.assertEqual(breaches(name, good), [])

    def test_registry_hosts_are_seen(self):
        self.assertEqual(len(breaches("places", {"a.txt": f"deb http://{REGISTRY}/debian trixie main\n"})), 1)

    def test_libraries_stay_in_their_folders(self):
        kafka = "librdkafka/rdkafka.h"
        for path, header, count in (("gateway/a.c", kafka, 1), ("produce/a.c", kafka, 0), ("gateway/ack.c", "h2o.h", 1),
                                    ("gateway/http_loop.c", "h2o.h", 0)):
            with self.subTest(path):
                self.assertEqual(len(breaches("layering", {path: f"#include <{header}>\n"})), count)

    def test_links_in_code_are_not_links(self):
        self.assertEqual(breaches("links", {"a.md": "`[a](b)`\n```\n[c](d)\n```\n"}), [])

    def test_open_words_are_not_open_in_their_own_rule(self):
        source = Path(rules.__file__).read_text()
        self.assertEqual(breaches("open_words", {"rules.py": source}), [])
        self.assertEqual(breaches("places", {"rules.py": source}), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
