"""Plants the bugs of `mutants.py` and `scaled.py`, one at a time, and shows which test notices each.

    python -m tests.stress.mutation.mutate [--jobs 1] [--only NAME ...]

Run from the root of the repository, by hand: pytest does not collect it. Each bug is made in a copy of src in
a temporary folder that comes first on the path, so nothing in the tree changes; a plugin in the same folder
makes sure that it is the copy which is tested. The table goes to TABLE.md beside this file (with --only: nowhere).
The exit status is 1 if a bug survives.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.stress.mutation.change import changed
from tests.stress.mutation.mutants import MUTANTS, Mutant
from tests.stress.mutation.scaled import FACTORS, SCALED

ROOT = Path(__file__).resolve().parents[3]
TABLE = Path(__file__).with_name("TABLE.md")
TIMEOUT = 900.0
WRONG_COPY = 99
GUARD = f"""
import os
import pytest
from hypothesis import Phase, settings

settings.register_profile(  # reproducible, and no time spent on shrinking
    "mutation", deadline=None, max_examples=40, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)

def pytest_sessionfinish(session):
    import aria_sampling
    if not aria_sampling.__file__.startswith(os.environ["MUTANT_FOLDER"]):
        pytest.exit("tested " + aria_sampling.__file__, returncode={WRONG_COPY})
"""


def planted(mutant: Mutant) -> str:
    """The source of the file that it changes, with the bug in it; LookupError if it cannot be made."""
    text = (ROOT / "src" / "aria_sampling" / mutant.file).read_text(encoding="utf-8")
    try:
        return changed(text, *mutant.edits) + mutant.appended
    except LookupError as error:
        raise LookupError(f"mutant {mutant.name}, {mutant.file}: {error}") from None


def plant(mutant: Mutant | None, folder: Path) -> None:
    """Copy src to `folder` with that bug in it."""
    shutil.copytree(ROOT / "src", folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    (folder / "mutation_guard.py").write_text(GUARD, encoding="utf-8")
    if mutant is not None:
        (folder / "aria_sampling" / mutant.file).write_text(planted(mutant), encoding="utf-8")


def run(mutant: Mutant | None, tests: tuple[str, ...], *, reference: bool) -> tuple[str | None, float]:
    """Return the first test that fails with that bug (None: all pass), and the seconds it took.

    `reference`: on the Python kernel.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        plant(mutant, folder)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "MUTANT_FOLDER": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        if reference:
            env["ARIA_KERNEL"] = "reference"
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "mutation_guard", "--hypothesis-profile=mutation"]
        command = [sys.executable, "-m", "pytest", *options, "--tb=no", "-rf", *tests]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        seconds = time.perf_counter() - start
    if done.returncode == 0:
        return None, seconds
    failed = re.search(r"^FAILED (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode != 1 or failed is None:
        raise RuntimeError(f"{mutant}: pytest ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return failed.group(1), seconds


def check_sources(mutants: list[Mutant]) -> None:
    """Raise unless all mutants can be planted, before any of them is run."""
    names = [mutant.name for mutant in mutants]
    if len(set(names)) != len(names):
        raise ValueError("two mutants of one name")
    for mutant in mutants:
        if missing := [test for test in mutant.tests if not (ROOT / test).exists()]:
            raise ValueError(f"mutant {mutant.name}: there is no {missing}")
        planted(mutant)


Results = list[tuple[Mutant, str | None, float]]


def verdict(test: str | None) -> str:
    """The cell for the test that noticed."""
    return "**survives**" if test is None else "`" + test.removeprefix("tests/").replace("|", "\\|") + "`"


def report(written: Results, scaled: Results) -> str:
    """Return the kill table."""
    killed, noticed = (sum(test is not None for _, test, _ in results) for results in (written, scaled))
    lines = [
        "# Kill table",
        "",
        "Made by `python -m tests.stress.mutation.mutate`. Shown is the first test that fails.",
        "",
        "## Deliberate bugs",
        "",
        f"{killed} of {len(written)} are noticed. The bugs themselves are in `mutants.py`.",
        "",
        "| bug | what is wrong | where | first test that fails |",
        "|---|---|---|---|",
    ]
    for mutant, test, _ in written:
        lines.append(f"| {mutant.name} | {mutant.what} | `{mutant.file}` | {verdict(test)} |")
    lines += [
        "",
        "## Functions of `bounds.py`, each result scaled",
        "",
        f"{noticed} of {len(scaled)} are noticed.",
        "",
        "| result | " + " | ".join(f"× {factor}" for factor in FACTORS) + " |",
        "|---|" + "---|" * len(FACTORS),
    ]
    for i in range(0, len(scaled), len(FACTORS)):
        tests = [verdict(test) for _, test, _ in scaled[i : i + len(FACTORS)]]
        lines.append(f"| {scaled[i][0].name.rsplit(' × ', 1)[0]} | " + " | ".join(tests) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run them all, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="how many to run at once")
    parser.add_argument("--only", metavar="NAME", action="append", help="run this one, and leave the table alone")
    arguments = parser.parse_args()
    every = [*MUTANTS, *SCALED]
    mutants = [mutant for mutant in every if arguments.only is None or mutant.name in arguments.only]
    if not mutants:
        parser.error(f"no mutant of that name; there are {', '.join(mutant.name for mutant in every)}")
    check_sources(mutants)
    for reference in {mutant.reference for mutant in mutants}:
        files = tuple(dict.fromkeys(file for each in mutants if each.reference == reference for file in each.tests))
        test, seconds = run(None, files, reference=reference)
        print(f"without a bug: {'all pass' if test is None else 'FAILS ' + test} ({seconds:.1f} s)", flush=True)
        if test is not None:
            return 1

    def one(mutant: Mutant) -> tuple[Mutant, str | None, float]:
        test, seconds = run(mutant, mutant.tests, reference=mutant.reference)
        print(f"{mutant.name}: {test or 'SURVIVES'} ({seconds:.1f} s)", flush=True)
        return mutant, test, seconds

    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(one, mutants))
    if arguments.only is None:
        TABLE.write_text(report(results[: len(MUTANTS)], results[len(MUTANTS) :]), encoding="utf-8")
    return int(any(test is None for _, test, _ in results))


if __name__ == "__main__":
    sys.exit(main())
