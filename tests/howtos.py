"""Runs the code of pages as a reader would: each page pasted in order into one fresh interpreter, in an empty folder.

``python -m tests.howtos [PAGE...]`` takes the README, the tutorial and all how-tos if none is named. It says for each
page how many ran, or where the first failed. `--python` takes the interpreter of another environment, such as
one into which the first line of the page has installed what it needs.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STANDARD = sys.stdlib_module_names
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_PASTE = """
import doctest, json, sys, traceback
names = {"__name__": "__main__"}
for line, source in json.load(sys.stdin):
    if source.lstrip().startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(source, names, f"line {line}", None, line)
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
        said = []
        failed = runner.run(test, out=said.append, clear_globs=False).failed
        names.update(test.globs)
    else:
        said, failed = [], False
        try:
            exec(compile("\\n" * line + source, "page", "exec"), names)
        except BaseException:
            failed, said = True, [traceback.format_exc()]
    if failed:
        sys.exit(f"the block at line {line}\\n" + "".join(said))
"""


def pages():
    """The pages with code to paste, by their names from the root."""
    return [
        "README.md",
        "docs/tutorial.md",
        *(f"docs/howto/{path.name}" for path in sorted((ROOT / "docs/howto").glob("*.md"))),
    ]


def blocks(name):
    """(line, source) of each Python block of a page."""
    text = (ROOT / name).read_text("utf-8")
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in _BLOCK.finditer(text)]


def paste(parts, python=sys.executable):
    """Run blocks in a process of their own, in an empty folder; return what failed, or an empty text."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-I", "-c", _PASTE],
            input=json.dumps(parts),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    return "" if done.returncode == 0 else done.stderr or f"exit status {done.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as docs/howto/choose.md")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to paste into")
    options = parser.parse_args()
    failed = 0
    for name in options.pages or pages():
        parts = blocks(name)
        fault = paste(parts, options.python)
        failed += bool(fault)
        print(f"{name}: {fault.strip() if fault else f'{len(parts)} blocks ran'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
