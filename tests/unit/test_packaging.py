"""The promises of the package as a whole: what importing it loads, its names, its version, its kernel, its imports."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aria_sampling

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "aria_sampling"
SOURCES = sorted(PACKAGE.rglob("*.py"))
WRITTEN = {"", ".py", ".pyi", ".cpp", ".hpp", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".cff"}
HEAVY = ["torch", "sklearn", "matplotlib", "scipy", "diffusers", "transformers", "pandas", "pyarrow", "ray"]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_loads_nothing_heavy():
    loaded = run_python(f"import sys, aria_sampling; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded == "[]"


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
    own = [name for name in module.__all__ if not hasattr(aria_sampling, name)]  # the others have pages of their own
    assert sorted(documented) == sorted(own)


@pytest.mark.parametrize("name", ["prompts", "embed"])
def test_every_public_name_of_the_modules_on_pools_is_in_the_reference(name):
    module = importlib.import_module(f"aria_sampling.{name}")
    page = (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")
    documented = re.findall(rf"auto(?:class|function):: aria_sampling\.{name}\.(\w+)$", page, re.MULTILINE)
    assert sorted(documented) == sorted(module.__all__)
    assert all(getattr(module, each).__doc__ for each in module.__all__)


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


def test_the_compiled_kernel_is_in_use():
    """Unless another one is asked for. A kernel that does not load must not go unnoticed here."""
    from aria_sampling import _kernel

    assert _kernel.COMPILED is (os.environ.get("ARIA_KERNEL") != "reference")


def test_the_stub_of_the_kernel_names_what_is_in_it():
    core = pytest.importorskip("aria_sampling._kernel._core")
    stub = ast.parse((PACKAGE / "_kernel" / "_core.pyi").read_text(encoding="utf-8"))
    named = {node.name for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert named == {name for name in dir(core) if not name.startswith("_")}


def inside_functions(path: Path) -> Iterator[ast.AST]:
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, functions):
            yield from ast.walk(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_function_imports_our_own_modules(path):
    """That would hide a circle of modules from its readers, and often from import-linter."""
    for node in inside_functions(path):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "aria_sampling" for alias in node.names), node.lineno
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, node.lineno
            assert (node.module or "").split(".")[0] != "aria_sampling", node.lineno


def test_dynamic_imports_are_two():
    """Arrays load the torch side twice: for `Allocator.sampler`, and for the first tensor of RandomConditioning."""
    found = set()
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        dynamic = [call for call in calls if call.split(".")[-1] in {"import_module", "__import__"}]
        found |= {(path.relative_to(PACKAGE).as_posix(), call) for call in dynamic}
        assert len(dynamic) <= 1, path
    call = "importlib.import_module"
    assert found == {("allocator.py", call), ("conditioning/_backend.py", call)}


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
        if path.is_file() and path.suffix in WRITTEN:
            found = pattern.search(path.read_text(encoding="utf-8", errors="ignore"))
            if found:
                guilty.append(f"{name}: {found.group()}")
    assert not guilty
