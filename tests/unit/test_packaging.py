"""The promises of the package as a whole: what importing it loads, its names, its version, its size."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import re
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest

import aria_sampling

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "aria_sampling"
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ["torch", "sklearn", "matplotlib", "diffusers", "transformers", "pandas"]

# Not the core, so not on its budget: the torch side, glue for hosts, figures, the command line.
OUTSIDE_THE_CORE = ("torch", "integrations", "report", "cli.py")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def code_lines(path: Path) -> int:
    """Lines with code on them: no docstrings, comments or blank lines."""
    source = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    silent = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.ENCODING,
    }
    lines: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(source.encode()).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def test_import_loads_nothing_heavy():
    loaded = run_python(f"import sys, aria_sampling; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded == "[]"


def test_import_is_quick():
    """Under 150 ms beyond NumPy, in processor time, so that a busy machine does not fail it."""
    code = "import time, numpy; t = time.process_time(); import aria_sampling; print(time.process_time() - t)"
    assert min(float(run_python(code)) for _ in range(5)) < 0.15


def test_every_public_name_resolves():
    assert len(set(aria_sampling.__all__)) == len(aria_sampling.__all__)
    for name in aria_sampling.__all__:
        assert getattr(aria_sampling, name) is not None


def test_public_names_of_torch_resolve():
    module = pytest.importorskip("aria_sampling.torch")
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_public_names_have_docstrings():
    for name in aria_sampling.__all__:
        if not name.startswith("__"):
            assert getattr(aria_sampling, name).__doc__, name


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"auto(?:class|exception|function):: aria_sampling\.(\w+)$", pages, re.MULTILINE))
    assert documented == {name for name in aria_sampling.__all__ if not name.startswith("__")}


def test_every_public_name_of_torch_is_in_the_reference():
    module = pytest.importorskip("aria_sampling.torch")
    page = (ROOT / "docs" / "reference" / "torch.md").read_text(encoding="utf-8")
    documented = re.findall(r"auto(?:class|function):: aria_sampling\.torch\.(\w+)$", page, re.MULTILINE)
    assert sorted(documented) == sorted(module.__all__)


def test_what_is_outside_the_core_is_there_or_still_to_come():
    """A name that is misspelt here, or moved, would put its files on the core's budget without a word."""
    assert (PACKAGE / "torch" / "__init__.py").is_file()
    outside = {path.relative_to(PACKAGE).parts[0] for path in SOURCES if "import torch" in path.read_text("utf-8")}
    assert outside <= set(OUTSIDE_THE_CORE)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no_such_name"):
        aria_sampling.no_such_name


def test_version_is_that_of_the_metadata():
    assert aria_sampling.__version__ == importlib.metadata.version("aria-sampling")
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", aria_sampling.__version__)


def test_base_dependencies_are_numpy_and_scipy():
    required = importlib.metadata.requires("aria-sampling") or []
    base = {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in required if "extra ==" not in line}
    assert base == {"numpy", "scipy"}


def test_typed_marker_is_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_the_core_is_small():
    core = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] not in OUTSIDE_THE_CORE]
    assert sum(map(code_lines, core)) < 2500


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_are_small(path):
    assert code_lines(path) <= 250


def test_code_lines_counts_code_alone(tmp_path):
    path = tmp_path / "example.py"
    source = """
        QQQDoc.

        more
        QQQ

        # comment
        x = 1  # why

        def f():
            QQQDoc.QQQ
            return (
                x
            )
    """.replace("QQQ", '"' * 3)
    path.write_text(textwrap.dedent(source))
    assert code_lines(path) == 5


def test_no_file_names_a_place_on_the_machine_it_was_written_on():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Spelt in parts, so that this file does not name them either.
    places = ["work/", "home/[a-z]", "Users/[A-Za-z]", "opt/pypi", "root/"]
    pattern = re.compile("|".join("/" + place for place in places))
    guilty = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".cff"}:
            found = pattern.search(path.read_text(encoding="utf-8", errors="ignore"))
            if found:
                guilty.append(f"{name}: {found.group()}")
    assert not guilty
