#!/usr/bin/env python3
"""Set up this repository on a fresh machine and run its commands. Needs Python 3.11+ and nothing else.

    python tools/dev.py demo          distil the emoji teacher under random conditioning and under ARIA, and compare
    python tools/dev.py test          run the tests; `test -m ""` runs the slow ones, too
    python tools/dev.py integrations  run every training script of integrations/ with --smoke
    python tools/dev.py lint          ruff, pyright and the layer contracts
    python tools/dev.py docs          build the documentation, warnings as errors
    python tools/dev.py build         compile the kernel again, beside its sources in src/aria_sampling/_kernel
    python tools/dev.py sanitize      test the kernel under the address and undefined-behaviour sanitizers
    python tools/dev.py wheel         build sdist and wheel, and use the wheel alone in a clean environment
    python tools/dev.py setup         install everything and stop

What comes after the command is passed on: `demo --steps 300`, `test -k partition`.

The first run makes `.venv` in the repository and installs what the command needs, at the versions in
constraints.txt; later runs reuse it until pyproject.toml or constraints.txt change. The kernel is compiled
then, and again whenever its sources change. CMake and Ninja come from PyPI, and so does a C++ compiler (zig)
where the machine has none. ARIA_KERNEL=reference does without compiling, and without speed.

This file stays readable by old Pythons so that they can say what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "aria-installed.json"
KERNEL = ROOT / "src" / "aria_sampling" / "_kernel"
BUILD_FOLDER = ROOT / "build"
OLDEST = (3, 11)

# What each command needs: ("extra", name) of the package or ("group", name) of pyproject.toml.
DEMO = ("extra", "demo")
TEST, HOSTS, LINT, DOCS, BUILD = (("group", name) for name in ("test", "hosts", "lint", "docs", "build"))
NEEDS = {
    "build": [],
    "sanitize": [TEST],
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

# The check of the wheel, where neither torch nor scikit-learn is installed. It runs twice, with the compiled kernel
# and with the Python one, which must come to the same digest.
WHEEL_CHECK = """
import os
import sys
from pathlib import Path
import aria_sampling as aria
heavy = sorted({"torch", "sklearn", "matplotlib", "scipy", "diffusers"} & set(sys.modules))
assert not heavy, heavy

import numpy as np
from aria_sampling import _kernel

kernel = os.environ.get("ARIA_KERNEL", "compiled")
assert _kernel.COMPILED is (kernel == "compiled"), kernel
pool = aria.Partition.from_labels(np.arange(1000) % 10)
pool.save("pool.aria")
allocator = aria.Allocator(pool, coverage=aria.Coverage(pool, items=np.arange(0, 1000, 7)), seed=0)
for _ in range(50):
    draw = allocator.draw(64)
    allocator.observe(draw.regions, 1.0 + (draw.regions == 3))
    allocator.step()
assert allocator.probabilities.argmax() == 3, allocator.probabilities
resumed = aria.Allocator(pool, coverage=allocator.coverage, seed=0)
resumed.load_state_dict(allocator.state_dict())
assert (resumed.draw(64).items == allocator.draw(64).items).all()
digest = Path("digest")
if digest.exists():
    assert digest.read_text() == str(allocator.digest()), "another digest than with the other kernel"
digest.write_text(str(allocator.digest()))
print("aria_sampling", aria.__version__, "works with the", kernel, "kernel, numpy", np.__version__, "and SciPy alone")
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
    """Make `.venv` hold what the command needs, and the kernel be that of its sources."""
    wanted = {"{}:{}".format(*need) for need in NEEDS[command]}
    digest = fingerprint(ROOT / "pyproject.toml", ROOT / "constraints.txt")
    stamp = read_stamp()
    usable = stamp.get("home") == home() and venv_python().exists()
    current = usable and stamp.get("digest") == digest
    if not (current and wanted <= set(stamp["installed"])):
        if not usable:
            make_venv()
        write_stamp({"home": home()})  # an installation that breaks off is not taken for a whole one
        installed = set(stamp.get("installed", [])) | wanted if current else wanted
        complete = {"digest": digest, "home": home(), "installed": sorted(installed), "kernel": kernel_sources()}
        install(sorted(installed))
        write_stamp(complete)
    elif COMPILED and stamp.get("kernel") != kernel_sources() and command != "build":
        compile_kernel()


def install(wanted):
    say("installing {} into .venv (the first time takes a few minutes)".format(", ".join(wanted) or "the package"))
    groups = [name.partition(":")[2] for name in wanted if name.startswith("group:")]
    extras = [name.partition(":")[2] for name in wanted if name.startswith("extra:")]
    must([*pip(), "--upgrade", "pip>=25.1"])  # older ones know no dependency groups
    environment = building()
    target = ".[{}]".format(",".join(extras)) if extras else "."
    chosen = [part for group in groups for part in ("--group", group)]
    must([*pip(), "--no-build-isolation", "-e", target, *chosen], WITHOUT, **environment)


def pip():
    return [str(venv_python()), "-m", "pip", "--disable-pip-version-check", "install", "-qq", "-c", "constraints.txt"]


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


def fingerprint(*paths):
    """Return a digest of the files that decide what is installed."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_stamp():
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_stamp(stamp):
    STAMP.write_text(json.dumps(stamp), encoding="utf-8")


# ---------------------------------------------------------------- the kernel

COMPILED = os.environ.get("ARIA_KERNEL") != "reference"
WITHOUT = "ARIA_KERNEL=reference does without a compiled kernel: the same draws, 10 to 100 times slower."


def kernel_sources():
    """Return a digest of what the kernel is compiled from, or "none" where it is not."""
    sources = [path for path in KERNEL.iterdir() if path.suffix in (".cpp", ".hpp", ".txt")]
    return fingerprint(*sorted(sources)) if COMPILED else "none"


def compile_kernel():
    """Compile the kernel and put it beside its sources; nanobind's part is compiled the first time only."""
    say("compiling the kernel")
    stamp = {**read_stamp(), "kernel": kernel_sources()}
    must([*pip(), "--no-deps", "--no-build-isolation", "-e", "."], WITHOUT, **building())
    write_stamp(stamp)


def building():
    """Install what compiling takes, and return the environment to compile in."""
    if not COMPILED:
        must([*pip(), "--group", "kernel"])
        return {}
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        advice = f"On Debian and Ubuntu: `apt-get install python3-dev`. {WITHOUT}"
        sys.exit(fail(f"the headers of Python {version()} are needed to compile the kernel. {advice}"))
    groups = ["--group", "kernel"]
    compiler = find_compiler(["c++", "g++", "clang++"])
    environment = {} if compiler is None or os.name == "nt" else {"CXX": compiler}
    if compiler is None:
        say("no C++ compiler here; the one of the ziglang wheel serves (the first time takes a few minutes)")
        groups += ["--group", "compiler"]
        compiler = "zig"
        environment["CMAKE_TOOLCHAIN_FILE"] = str(zig_toolchain())
    must([*pip(), *groups])
    # CMake goes on with the compiler that it found the first time.
    noted = BUILD_FOLDER / "compiler.txt"
    if not noted.exists() or noted.read_text(encoding="utf-8") != compiler:
        shutil.rmtree(str(BUILD_FOLDER), ignore_errors=True)
        BUILD_FOLDER.mkdir()
        noted.write_text(compiler, encoding="utf-8")
    forget_objects()
    return environment


def forget_objects():
    """Have the kernel compiled again: Ninja goes by dates, and a source that was put back has an old one."""
    for path in BUILD_FOLDER.glob("**/CMakeFiles/_core.dir/*.o*"):
        path.unlink()


def find_compiler(names):
    """Return the first C++ compiler that answers, or None. On Windows CMake finds Visual Studio by itself."""
    if os.name == "nt":
        return "Visual Studio"
    for name in filter(None, [os.environ.get("CXX"), *names]):
        try:
            done = subprocess.run([*shlex.split(name), "--version"], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return name
    return None


def zig_toolchain():
    """Return a file that tells CMake to compile, link and archive with the ziglang wheel."""
    zig = f'"{venv_python().as_posix()}" -m ziglang'
    lines = [
        # By itself zig compiles for this very processor. -O2 spares it a second C++ library, for what is not optimized.
        f"set(CMAKE_CXX_COMPILER {zig} c++ -mcpu=baseline -O2)",
        f"set(CMAKE_CXX_ARCHIVE_CREATE [[{zig} ar qc <TARGET> <LINK_FLAGS> <OBJECTS>]])",
        'set(CMAKE_CXX_ARCHIVE_FINISH "")',
        "set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)",
    ]
    path = VENV / "zig-toolchain.cmake"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


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


def build(extra):
    if extra:
        return fail("build takes no arguments, got {}".format(" ".join(extra)))
    compile_kernel()
    check = "from aria_sampling import _kernel; print('the compiled kernel is in use:', _kernel.COMPILED)"
    return run([str(venv_python()), "-W", "error", "-c", check])


def sanitize(extra):
    """Run the tests of the kernel against one with sanitizers in it, in a copy of the package of its own."""
    compiler = find_compiler(["g++", "clang++"])
    if not sys.platform.startswith("linux") or compiler is None:
        say("SKIPPED: the sanitizers take Linux and g++ or clang++")
        return 0
    clang = "clang" in answer([compiler, "--version"])
    names = ["libclang_rt.asan.so", f"libclang_rt.asan-{platform.machine()}.so"] if clang else ["libasan.so"]
    found = [answer([compiler, "-print-file-name=" + name]) for name in names]
    runtime = next(filter(os.path.isabs, found), None)  # without a folder it is the name that was asked for
    if runtime is None:
        say(f"SKIPPED: {compiler} comes without the run-time library of its address sanitizer")
        return 0
    folder = BUILD_FOLDER / "sanitize"
    package = folder / "src" / "aria_sampling"
    shutil.rmtree(str(package), ignore_errors=True)
    shutil.copytree(str(KERNEL.parent), str(package), ignore=shutil.ignore_patterns("__pycache__", "_core.*.so"))
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
    configure = [
        *(tool("cmake"), "-G", "Ninja", "-S", str(KERNEL), "-B", str(folder / "objects")),
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_CXX_COMPILER=" + compiler,
        "-DCMAKE_CXX_FLAGS=" + flags + (" -shared-libsan" if clang else ""),
        "-DPython_EXECUTABLE=" + str(venv_python()),
        "-Dnanobind_DIR=" + answer([str(venv_python()), "-m", "nanobind", "--cmake_dir"]),
    ]
    must(configure)
    forget_objects()
    must([tool("cmake"), "--build", str(folder / "objects")])
    must([tool("cmake"), "--install", str(folder / "objects"), "--prefix", str(folder / "src")])
    environment = {
        "PYTHONPATH": str(folder / "src"),
        # The C++ library as well, or the sanitizer cannot follow exceptions.
        "LD_PRELOAD": " ".join([runtime, answer([compiler, "-print-file-name=libstdc++.so.6"])]),
        "ASAN_OPTIONS": "detect_leaks=0",  # they would be Python's own
        "PYTHONMALLOC": "malloc",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
    }
    check = f"from aria_sampling._kernel import _core as k; assert k.__file__.startswith({str(folder)!r}), k.__file__"
    python = str(venv_python())
    tests = extra or ["tests/unit/kernel", "tests/unit/test_learning.py"]
    code = run([python, "-c", check], **environment)
    return code or run([python, "-m", "pytest", "-p", "no:cacheprovider", "--capture=sys", *tests], **environment)


def wheel(extra):
    if extra:
        return fail("wheel takes no arguments, got {}".format(" ".join(extra)))
    shutil.rmtree(str(ROOT / "dist"), ignore_errors=True)
    pinned = {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    # The wheel is built from the sdist, each in an environment that has what pyproject.toml asks for and nothing else.
    code = run([str(venv_python()), "-m", "build", "--outdir", "dist", "."], **pinned, **building())
    if code:
        return code
    (built,) = (ROOT / "dist").glob("*.whl")
    names = zipfile.ZipFile(str(built)).namelist()
    foreign = [name for name in names if not name.startswith(("aria_sampling/", "aria_sampling-"))]
    sources = [name for name in names if name.endswith((".cpp", ".hpp", ".txt", ".cmake"))]
    if strays := foreign + [name for name in sources if name.startswith("aria_sampling/")]:
        return fail("the wheel has what it should not have: {}".format(", ".join(strays)))
    with tempfile.TemporaryDirectory() as folder:
        must([sys.executable, "-m", "venv", folder])
        python = str(Path(folder) / venv_python().relative_to(VENV))
        install = [python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "-c", "constraints.txt"]
        must([*install, str(built)])
        # Away from the repository, so that the installed copy is what is imported.
        script = str(Path(python).with_name("aria-sampling"))
        return (
            run([python, "-W", "error", "-c", WHEEL_CHECK], cwd=folder)
            or run([python, "-W", "error", "-c", WHEEL_CHECK], cwd=folder, ARIA_KERNEL="reference")
            or run([script, "inspect", "pool.aria"], cwd=folder)
        )


def setup(extra):
    say("ready: .venv holds everything")
    return 0


COMMANDS = {
    "demo": demo,
    "test": test,
    "integrations": integrations,
    "lint": lint,
    "docs": docs,
    "build": build,
    "sanitize": sanitize,
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


def must(command, advice="", **environment):
    code = run(command, **environment)
    if code:
        sys.exit(fail(f"that failed with exit code {code}; what it printed is above. {advice}"))


def answer(command):
    """Return what a program prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


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
