#!/usr/bin/env python3
"""unittests.py FILE...: runs Python unittest files, verdicts in the runner's protocol (tests/suites)."""
import importlib.util
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Lines(unittest.TextTestResult):
    """Failures and errors keep unittest's own report at the end; the lines are what is counted."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.red = set()

    @staticmethod
    def name(test):
        return test.id().replace(" ", "_")

    def say_red(self, test, error):
        first = (str(error[1]).strip() or error[0].__name__).splitlines()[0]
        self.red.add(test)
        print(f"not ok {self.name(test)} - {first}", flush=True)

    def addSuccess(self, test):
        print(f"ok {self.name(test)}", flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.say_red(test, err)

    def addError(self, test, err):  # also a class or module that could not be set up
        super().addError(test, err)
        self.say_red(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.say_red(subtest, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(f"skip {self.name(test)} - {reason}", flush=True)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main():
    sys.path.insert(0, str(ROOT))
    suite = unittest.TestSuite()
    for name in sys.argv[1:]:
        suite.addTests(load(Path(name).resolve()))
    if suite.countTestCases() == 0:
        sys.exit("no tests in " + " ".join(sys.argv[1:]))
    runner = unittest.TextTestRunner(stream=sys.stderr, resultclass=Lines)
    return 0 if runner.run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
