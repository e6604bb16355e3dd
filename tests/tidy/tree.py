"""The files that the house rules look at, and what kind of file each is."""
import re
import subprocess
from functools import cached_property
from pathlib import Path

C_SUFFIXES = (".c", ".h", ".cc")
# Data that is broken or foreign on purpose: inputs of tests, and the licence's own text.
DATA = re.compile(r"^(tests/.*/(corpus|golden|data)/|tests/config/|LICENSE$)")


class Tree:
    """`files` maps a path relative to the root to its text. Texts that are no UTF-8 are left out."""

    def __init__(self, root, files):
        self.root = Path(root)
        self.files = files

    @classmethod
    def of_git(cls, root):
        """What is tracked, and what is new and not ignored: the rules hold before a commit, too."""
        listed = subprocess.run(["git", "-c", f"safe.directory={root}", "ls-files", "-z", "--cached", "--others",
                                 "--exclude-standard"],
                                cwd=root, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
        files = {}
        for name in sorted(filter(None, listed)):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                try:
                    files[name] = path.read_text("utf-8")
                except UnicodeDecodeError:
                    continue
        return cls(root, files)

    def pick(self, *suffixes):
        return [path for path in self.files if path.endswith(suffixes) and not DATA.match(path)]

    def first_line(self, path):
        return self.files[path].split("\n", 1)[0]

    @cached_property
    def c(self):
        return self.pick(*C_SUFFIXES)

    @cached_property
    def python(self):
        scripts = [path for path in self.scripts if "python" in self.first_line(path)]
        return sorted({*self.pick(".py"), *scripts})

    @cached_property
    def shell(self):
        scripts = [path for path in self.scripts if re.search(r"\b(ba)?sh\b", self.first_line(path))]
        return sorted({*self.pick(".sh"), *scripts})

    @cached_property
    def scripts(self):
        return [path for path in self.files if self.files[path].startswith("#!") and not DATA.match(path)]

    @cached_property
    def markdown(self):
        return self.pick(".md")

    @cached_property
    def code(self):
        return sorted({*self.c, *self.python, *self.shell})

    @cached_property
    def prose_and_code(self):
        return sorted({*self.code, *self.markdown, *self.pick("meson.build", ".txt", ".yaml", ".yml", ".html", ".xml",
                                                              ".properties", ".sql", ".service", ".json", "suites")})


def without_comments_and_strings(text):
    """C with the inside of comments, strings and character constants blanked; line numbers stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

    def blank(match):
        found = match.group(0)
        if found.startswith("/"):
            return re.sub(r"[^\n]", " ", found)
        return found[0] + " " * (len(found) - 2) + found[-1]

    return pattern.sub(blank, text)
