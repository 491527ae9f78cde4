"""Text files: one rule for captions, the how-to's, and no reader in the project that has another."""

import ast
from pathlib import Path

import pytest

from aria_sampling import prompts

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for folder in ("src", "benchmarks", "integrations", "tools") for path in sorted((ROOT / folder).rglob("*.py"))
]
WITH_ENCODING = {"read_text": 0, "write_text": 1, "open": 3}  # the place of `encoding` among the arguments


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_a_line_is_a_caption(tmp_path, end, mark, last):
    captions = ["a cat", "a\u2028dog", "a\x0bb", "a\x0cb", "a\x85b", "a\x1cb", " spaces ", "été", "a\rb", "last"]
    path = tmp_path / "captions.txt"
    path.write_bytes((mark + end.join(captions) + end * last).encode("utf-8"))
    assert list(prompts.read(path, empty="refuse")) == captions


def test_an_empty_line_can_be_refused(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes(b"a\n\nb\n")
    with pytest.raises(ValueError, match=r"captions\.txt, line 2: expected a caption, got an empty one"):
        list(prompts.read(path, empty="refuse"))
    assert list(prompts.read(path)) == ["a", "b"]


def reads_a_file(node):
    """Whether an expression reads a file: `.read_text(...)`, `.read()`."""
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "read")
    )


def calls():
    """All calls of the project's own code, with where they are."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", node


def test_no_file_is_split_where_captions_go_on():
    """`splitlines` also splits at U+2028, VT, FF, NEL and four more."""
    found = [
        where
        for where, call in calls()
        if isinstance(call.func, ast.Attribute) and call.func.attr == "splitlines" and reads_a_file(call.func.value)
    ]
    assert not found, "iterate over the file, opened with newline='\\n', or split('\\n')"


def test_no_script_has_a_reader_of_lines_of_its_own():
    """Lines are read by `aria_sampling.prompts.read`, or by iterating over the file; then none is left out."""
    found = [
        where.partition(":")[0]
        for where, call in calls()
        if where.startswith(("src/", "integrations/"))
        and isinstance(call.func, ast.Attribute)
        and (call.func.attr == "readlines" or ast.unparse(call).endswith(".split('\\n')"))
    ]
    assert found == ["src/aria_sampling/prompts/_lines.py"]  # the reader itself


def test_every_text_file_is_read_with_its_encoding():
    """Without it a file is read by the machine's locale."""
    found = []
    for where, call in calls():
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
        if name not in ("read_text", "write_text") and not (name == "open" and isinstance(call.func, ast.Name)):
            continue
        binary = name == "open" and any("b" in str(getattr(each, "value", "")) for each in call.args[1:2])
        given = any(each.arg == "encoding" for each in call.keywords) or len(call.args) > WITH_ENCODING[name]
        if not binary and not given:
            found.append(where)
    assert not found
