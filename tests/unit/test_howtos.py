"""Pages are run as a reader would run them, and begin with what they need; see `tests.howtos`.

Each block of a page also runs as a test of that page, with all hosts installed (conftest.py at the root).
"""

import ast
import re
import tomllib

import pytest

from tests import howtos
from tests.howtos import ROOT

NEEDED = {  # what a piece of code needs: packages by the names they are installed by
    r"\bimport torch\b|\bfrom torch\b|\baria_sampling\.torch\b|\.sampler\(": {"torch"},
    r"\bfrom aria_sampling import .*\bprompts\b": {"pyarrow"},
    r"encoder=\"tfidf": {"scikit-learn"},
    r"\bmatplotlib\b|\breport\.(save|page|figures?|html)\b": {"matplotlib"},
    r"\baccelerate\b": {"accelerate"},
    r"\bdiffusers\b": {"diffusers"},
    r"\bfrom transformers\b|\bintegrations\.transformers\b": {"transformers", "accelerate"},  # its Trainer does
    r"\blightning\b": {"lightning"},
    r"\bwebdataset\b": {"webdataset"},
}
OF_ITSELF = {"numpy", "scipy", "aria_sampling"}


def installed(line):
    """The packages that a ``pip install '.[extras]' others`` in a page's first line brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    command = re.search(r"pip install ([^`]+)", line)
    found, left = set(), command[1].replace("'", "").split() if command else []
    while left:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", left.pop()).groups()
        found.add(name)
        if name in (".", "aria-sampling"):
            left += [
                need for extra in (extras or "").split(",") if extra for need in project["optional-dependencies"][extra]
            ]
    return found


def first_line(name):
    """What stands between the title of a page and its first block or heading."""
    text = (ROOT / name).read_text("utf-8").split("\n", 1)[1]
    return re.split(r"^(?:```|#)", text, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", [page for page in howtos.pages() if page.startswith("docs/howto/")])
def test_a_howto_begins_with_what_it_needs(name):
    source = "\n".join(source for _, source in howtos.blocks(name))
    needed = set().union(*(packages for pattern, packages in NEEDED.items() if re.search(pattern, source)))
    assert needed <= installed(first_line(name)), f"{name} needs {needed} and says only {first_line(name)!r}"


def test_every_package_that_a_page_imports_is_known_here():
    known = OF_ITSELF.union(
        {"torch", "sklearn", "matplotlib", "accelerate", "diffusers", "transformers", "lightning", "webdataset"}
    )
    for name in howtos.pages():
        for _, source in howtos.blocks(name):
            if source.lstrip().startswith(">>>"):
                continue
            for node in ast.walk(ast.parse(source)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                for module in {full.partition(".")[0] for full in names}:
                    assert module in known or module in howtos.STANDARD, f"{name} imports {module}"


def test_each_block_of_the_readme_runs_alone(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    for line, source in howtos.blocks("README.md"):
        exec(compile("\n" * line + source, "README.md", "exec"), {"__name__": "__main__"})


def test_the_tutorial_needs_numpy_and_scipy_alone():
    absent = "import sys; sys.modules.update(dict.fromkeys(['torch', 'sklearn', 'matplotlib', 'pandas']))\n"
    assert howtos.paste([(0, absent), *howtos.blocks("docs/tutorial.md")]) == ""


def test_the_first_block_that_fails_is_named():
    parts = [(3, "x = 1\n"), (7, ">>> x\n1\n>>> y = 2\n"), (11, "assert y == 2\n"), (20, ">>> x\n3\n"), (30, "1 / 0\n")]
    assert howtos.paste(parts[:3]) == ""
    assert howtos.paste(parts).startswith("the block at line 20\n")
    assert "ZeroDivisionError" in howtos.paste([parts[4]])
