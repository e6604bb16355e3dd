"""The runner's protocol for script suites: `ok NAME`, `not ok NAME - why`, `skip NAME - reason`, one line a test."""

import sys
import unittest


def line(text):
    return " ".join(str(text).split())[:400]


class Lines(unittest.TextTestResult):
    """unittest's verdicts in that protocol."""

    def _name(self, test):
        return test.id().split(".", 1)[1]

    def addSuccess(self, test):
        super().addSuccess(test)
        print(f"ok {self._name(test)}", flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        print(f"not ok {self._name(test)} - {line(err[1])}", flush=True)

    def addError(self, test, err):
        super().addError(test, err)
        name = self._name(test) if hasattr(test, "_testMethodName") else "setup"
        print(f"not ok {name} - {line(f'{err[0].__name__}: {err[1]}')}", flush=True)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(f"skip {self._name(test)} - {line(reason)}", flush=True)


def main():
    """unittest.main() with these lines on stdout and unittest's own report on stderr."""
    unittest.main(testRunner=unittest.TextTestRunner(stream=sys.stderr, resultclass=Lines))
