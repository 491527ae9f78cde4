#!/usr/bin/env python3
"""Set up this repository on a fresh machine and run its commands. Needs Python 3.11+ and nothing else.

    python tools/dev.py demo          distil the emoji teacher under random conditioning and under ARIA, and compare
    python tools/dev.py test          run the tests; `test -m ""` runs the slow ones, too
    python tools/dev.py integrations  run every training script of integrations/ with --smoke
    python tools/dev.py lint          ruff, pyright and the layer contracts
    python tools/dev.py docs          build the documentation, warnings as errors
    python tools/dev.py wheel         build the wheel, install it alone in a clean environment and use it there
    python tools/dev.py setup         install everything and stop

What comes after the command is passed on: `demo --steps 300`, `test -k partition`.

The first run makes `.venv` in the repository and installs what the command needs, at the versions in
constraints.txt; later runs reuse it until pyproject.toml or constraints.txt change. It stays readable by
old Pythons so that they can say what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "aria-installed.json"
OLDEST = (3, 11)

# What each command needs: ("extra", name) of the package or ("group", name) of pyproject.toml.
DEMO = ("extra", "demo")
TEST, HOSTS, LINT, DOCS, BUILD = (("group", name) for name in ("test", "hosts", "lint", "docs", "build"))
NEEDS = {
    "demo": [DEMO],
    "test": [DEMO, TEST],
    "integrations": [DEMO, HOSTS],
    "lint": [DEMO, LINT],
    "docs": [DEMO, DOCS],
    "wheel": [BUILD],
    "setup": [DEMO, TEST, HOSTS, LINT, DOCS, BUILD],
}

# The study that `demo` runs: random conditioning against ARIA, one student, one seed.
STUDY = {
    "--methods": "rc,aria",
    "--students": "depth3",
    "--unseen": "Travel & Places,Objects",
    "--seeds": "10",
    "--steps": "1000",
    "--eval-prompts": "48",
    "--out": "runs/demo",
}
SMOKE = {"--out": "runs/smoke"}

# The check of the wheel, where neither torch nor scikit-learn is installed.
WHEEL_CHECK = """
import sys
import numpy as np
import aria_sampling as aria

pool = aria.Partition.from_labels(np.arange(1000) % 10)
pool.save("pool.aria")
allocator = aria.Allocator(pool, seed=0)
for _ in range(50):
    draw = allocator.draw(64)
    allocator.observe(draw.regions, 1.0 + (draw.regions == 3))
    allocator.step()
assert allocator.probabilities.argmax() == 3, allocator.probabilities
resumed = aria.Allocator(pool, seed=0)
resumed.load_state_dict(allocator.state_dict())
assert (resumed.draw(64).items == allocator.draw(64).items).all()
heavy = sorted({"torch", "sklearn", "matplotlib", "diffusers"} & set(sys.modules))
assert not heavy, heavy
print("aria_sampling", aria.__version__, "works with numpy", np.__version__, "and SciPy alone")
"""


def main(argv):
    """Run one command and return its exit code."""
    if sys.version_info < OLDEST:
        return fail(
            "Python {}.{} or newer is needed; this is {}. Call this script with a newer one, for example "
            "`python3.11 tools/dev.py {}`.".format(*OLDEST, sys.version.split()[0], " ".join(argv))
        )
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    command, extra = argv[0], argv[1:]
    if command not in NEEDS:
        return fail("unknown command {!r}; it is one of {}.".format(command, ", ".join(NEEDS)))
    prepare(command)
    return COMMANDS[command](extra)


# ---------------------------------------------------------------- the environment


def prepare(command):
    """Make `.venv` hold what the command needs."""
    wanted = {"{}:{}".format(*need) for need in NEEDS[command]}
    digest = fingerprint()
    stamp = read_stamp()
    usable = stamp.get("home") == home() and venv_python().exists()
    current = usable and stamp.get("digest") == digest
    if current and wanted <= set(stamp["installed"]):
        return
    if not usable:
        make_venv()
    installed = set(stamp.get("installed", [])) | wanted if current else wanted
    extras = sorted(name.partition(":")[2] for name in installed if name.startswith("extra:"))
    groups = sorted(name.partition(":")[2] for name in installed if name.startswith("group:"))
    STAMP.unlink(missing_ok=True)  # an installation that breaks off is not taken for a whole one
    say("installing {} into .venv (the first time takes a few minutes)".format(", ".join(sorted(installed))))
    pip = [str(venv_python()), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    must([*pip, "--upgrade", "pip>=25.1"])  # older ones know no dependency groups
    target = ".[{}]".format(",".join(extras)) if extras else "."
    install = [*pip, "-c", "constraints.txt", "-e", target]
    for group in groups:
        install += ["--group", group]
    must(install)
    STAMP.write_text(json.dumps({"digest": digest, "home": home(), "installed": sorted(installed)}))


def make_venv():
    say(f"making .venv with Python {version()}")
    done = run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if done != 0:
        sys.exit(
            fail(
                "could not make a virtual environment. On Debian and Ubuntu its parts come apart: "
                "`apt-get install python3-venv`, then try again."
            )
        )


def venv_python():
    return VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"


def tool(name):
    return str(venv_python().with_name(name + (".exe" if os.name == "nt" else "")))


def version():
    return ".".join(map(str, sys.version_info[:3]))


def home():
    """Return what a virtual environment is bound to: its Python, and its folder, which its scripts name."""
    return f"{version()} {ROOT}"


def fingerprint():
    """Return a digest of the files that decide what is installed."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def read_stamp():
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


# ---------------------------------------------------------------- the commands


def demo(extra):
    defaults = SMOKE if "--smoke" in extra else STUDY
    given = {argument.partition("=")[0] for argument in extra}
    arguments = [part for name, value in defaults.items() if name not in given for part in (name, value)]
    return run([str(venv_python()), "-m", "benchmarks.emoji", "distill", *arguments, *extra])


def test(extra):
    # A process a core, a file's tests in one: examples of a page go on from each other. `-n 0` for a debugger.
    # One thread: the tests' tensors are tiny, and sums in a fixed order are what some of them check.
    spread = ["-n", "logical", "--maxprocesses", "8", "--dist", "loadfile"]
    return run([str(venv_python()), "-m", "pytest", *spread, *extra], OMP_NUM_THREADS="1")


def integrations(extra):
    """Run the scripts of integrations/ one after another; arguments name some of them."""
    scripts = sorted((ROOT / "integrations").glob("*/train.py"))
    if unknown := set(extra) - {script.parent.name for script in scripts}:
        return fail("no such integration: {}".format(", ".join(sorted(unknown))))
    codes = []
    for script in scripts:
        if not extra or script.parent.name in extra:
            out = ROOT / "runs" / "integrations" / script.parent.name
            shutil.rmtree(str(out), ignore_errors=True)
            command = [str(venv_python()), "-m", f"integrations.{script.parent.name}.train"]
            codes.append(run([*command, "--smoke", "--output_dir", str(out)], OMP_NUM_THREADS="1"))
    return max(codes, default=0)


def lint(extra):
    if extra:
        return fail("lint takes no arguments, got {}".format(" ".join(extra)))
    codes = [
        run([tool("ruff"), "check", "."]),
        run([tool("ruff"), "format", "--check", "."]),
        run([tool("pyright"), "--pythonpath", str(venv_python())]),
        run([tool("lint-imports")]),
    ]
    return max(codes)


def docs(extra):
    return run([tool("sphinx-build"), "-n", "-W", "--keep-going", "-q", *extra, "docs", "docs/_build/html"])


def wheel(extra):
    if extra:
        return fail("wheel takes no arguments, got {}".format(" ".join(extra)))
    shutil.rmtree(str(ROOT / "dist"), ignore_errors=True)
    code = run([str(venv_python()), "-m", "build", "--outdir", "dist", "."])
    if code:
        return code
    with tempfile.TemporaryDirectory() as folder:
        must([sys.executable, "-m", "venv", folder])
        python = str(Path(folder) / venv_python().relative_to(VENV))
        built = [str(path) for path in sorted((ROOT / "dist").glob("*.whl"))]
        must([python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "-c", "constraints.txt", *built])
        # Away from the repository, so that the installed copy is what is imported.
        script = str(Path(python).with_name("aria-sampling"))
        return run([python, "-c", WHEEL_CHECK], cwd=folder) or run([script, "inspect", "pool.aria"], cwd=folder)


def setup(extra):
    say("ready: .venv holds everything")
    return 0


COMMANDS = {
    "demo": demo,
    "test": test,
    "integrations": integrations,
    "lint": lint,
    "docs": docs,
    "wheel": wheel,
    "setup": setup,
}


# ---------------------------------------------------------------- running things


def run(command, cwd=ROOT, **environment):
    """Run a program, saying so, and return its exit code. What the caller's environment sets wins."""
    say("$ " + " ".join(shorten(part) for part in command))
    # No window for figures, and no model hub: everything that the project runs is in the repository.
    env = {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", **environment, **os.environ}
    env["PATH"] = str(venv_python().parent) + os.pathsep + env.get("PATH", "")
    try:
        return subprocess.run(command, check=False, cwd=str(cwd), env=env).returncode
    except KeyboardInterrupt:
        return 130


def must(command):
    code = run(command)
    if code:
        sys.exit(fail(f"that failed with exit code {code}; what it printed is above."))


def shorten(part):
    part = part.replace(str(ROOT) + os.sep, "")
    part = part if "\n" not in part else "..."
    return f'"{part}"' if " " in part else part


def say(text):
    print("[dev] " + text, flush=True)


def fail(text):
    print("[dev] " + text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
