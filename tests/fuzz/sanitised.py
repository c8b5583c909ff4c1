"""The compiled part under the address and undefined-behaviour sanitizers, in one command:

    python tests/fuzz/sanitised.py --seconds 120

It builds a copy of the package in a temporary folder by gcc with ASan and UBSan, and runs the
mutators of JPEG files (`jpeg`: read, written again, requantised) and of .vzc files (`vzc`: bit
planes and packs) on it. Anything that a sanitizer says ends the run with its report, and the file
that was read then stands in `--keep`. Needs gcc and the headers of Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = (
    "-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
)


def library(name: str) -> str:
    """Where gcc has one of its libraries."""
    asked = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True)
    found = asked.stdout.strip()
    if asked.returncode or not os.path.isabs(found):
        raise SystemExit(f"gcc has no {name}: install its sanitizers (libasan, libubsan)")
    return found


def build(folder: Path) -> Path:
    """A copy of the package whose compiled part is instrumented; the folder that holds it."""
    copy = folder / "copy"
    shutil.copytree(ROOT / "src", copy / "src")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for old in (copy / "src" / "vizcomp").glob("_native*.so"):
        old.unlink()
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = {
        **os.environ,
        "CC": "gcc",
        "CFLAGS": FLAGS,
        "LDFLAGS": "-fsanitize=address,undefined",
    }
    built = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if built.returncode:
        raise SystemExit(f"it cannot be built:\n{built.stderr[-2000:]}")
    return copy / "src"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60, help="for each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings") / "sanitised.jpg")
    given = parser.parse_args()
    given.keep.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vizcomp-sanitised-") as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": str(build(Path(folder))),
            "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",  # so that each object has its own fences
        }
        common = ["--seconds", str(given.seconds), "--seed", str(given.seed)]
        for name, more in (("jpeg", ["--keep", str(given.keep.absolute())]), ("vzc", [])):
            command = [sys.executable, str(Path(__file__).parent / f"{name}.py"), *common, *more]
            done = subprocess.run(command, env=environment)
            if done.returncode:
                print(f"{name}: ended with {done.returncode}")
                return 1
            print(f"{name}: the sanitizers said nothing", flush=True)
    given.keep.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
