"""Which test holds each promise of the README and of the documentation.

A sentence outside code that says *never*, *every*, *exactly* or the like promises something, or looks like it.
`promises.toml` names for each of them the test that would fail if it were wrong, or says why it is no promise.
``python -m tests.promises`` prints both; after a page has changed, ``--write`` puts its new sentences into the list,
marked `TODO`, and takes out those that are gone.
"""

import argparse
import ast
import functools
import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".toml")
WORDS = re.compile(
    r"\b(exact|exactly|never|always|any|no more than|at most|every|cannot|can't|guarantees?|guaranteed|bit for bit)\b",
    re.IGNORECASE,
)
NO_TEST = ("definition: ", "no promise: ")  # the beginning of what stands in the place of a test
TODO = "TODO"

_FENCE = re.compile(r"^ *(```+|\$\$).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ITEM = re.compile(r" *([-*] |\d+\. |: |#+ |\|)")
_END = re.compile(r"(?<=[.!?])([*_)\"”]*) +(?=[A-Z`*_\[(\"“$<])")


def pages():
    """The README and the pages of the documentation, by their names from the root. cases.md names its own tests."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {
        path.relative_to(ROOT).as_posix(): path
        for path in found
        if "_build" not in path.parts and path.name != "cases.md"
    }


def sentences(text):
    """All sentences of a page outside its code and formulas, white space made one blank; a row of a table is one."""
    text = _COMMENT.sub("", _FENCE.sub("\n", text))
    units, open_ = [], False
    for line in text.splitlines():
        starts = _ITEM.match(line)
        if not line.strip():
            open_ = False
        elif starts or not open_:
            units.append(line.strip())
            open_ = not line.lstrip().startswith(("#", "|"))
        else:
            units[-1] += " " + line.strip()
    for unit in units:
        yield from [unit] if unit.startswith("|") else _END.sub(r"\1\n", unit).splitlines()


def promising(text):
    """The sentences of a page with one of the words, outside `code`; each once."""
    return list(dict.fromkeys(s for s in sentences(text) if WORDS.search(re.sub(r"`[^`]*`", "", s))))


def committed():
    """The list: for each page, for each sentence, what `promises.toml` says of it."""
    return tomllib.loads(LIST.read_text("utf-8"))


@functools.cache
def _names(path):
    tree = ast.parse(path.read_text("utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return names | {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def exists(test):
    """Whether there is a test of that name, ``path::function``, or a block with that text, ``page.md::text``."""
    name, _, what = test.partition("::")
    path = ROOT / name
    if not what or not path.is_file():
        return False
    if path.suffix == ".md":
        blocks = re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        return any(what in block for block in blocks)
    return what.lower().startswith("test") and what in _names(path)


def faults(held):
    """What is wrong with what a sentence is said to be held by, or nothing."""
    if isinstance(held, str) and held.startswith(NO_TEST):
        return [] if len(held.partition(": ")[2]) > 3 else [f"no reason: {held!r}"]
    tests = [held] if isinstance(held, str) else held
    return [f"no such test: {test}" for test in tests if not exists(test)] or ([] if tests else ["no test"])


def write(listed):
    """Write the list for the pages as they are, with what is said so far and `TODO` for the rest."""
    parts = ["# Which test holds each promise of the pages; see promises.py, which writes this file.\n"]
    for name, path in pages().items():
        said = listed.get(name, {})
        rows = [f"{_toml(s)} = {_toml(said.get(s, TODO))}\n" for s in promising(path.read_text("utf-8"))]
        if rows:
            parts.append(f'["{name}"]\n' + "".join(rows))
    LIST.write_text("\n".join(parts), "utf-8")


def _toml(value):
    if isinstance(value, list):
        return "[\n" + "".join(f"    {_toml(one)},\n" for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("pages", nargs="*", help="such as docs/tutorial.md; all if left out")
    parser.add_argument("--write", action="store_true", help="bring promises.toml up to date with the pages")
    options = parser.parse_args()
    listed = committed() if LIST.exists() else {}
    if options.write:
        write(listed)
        listed = committed()
    for name, path in pages().items():
        if options.pages and name not in options.pages:
            continue
        for sentence in promising(path.read_text("utf-8")):
            held = listed.get(name, {}).get(sentence, TODO)
            print(f"{name}: {sentence}")
            for one in [held] if isinstance(held, str) else held:
                print(f"    {one}")


if __name__ == "__main__":
    main()
