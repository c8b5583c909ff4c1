"""Whether two versions of the code write the same bytes: some 200 outputs of djpeg, encode and
depth, by their SHA-256.

    # of the version before
    python benchmarks/same_outputs.py --data ../shared/data --write before.json
    # of the version after
    python benchmarks/same_outputs.py --data ../shared/data --against before.json

To run another checkout's code, set PYTHONPATH to its `src` (with its extension built there). Exit
code 1 where outputs differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

JPEG_SOURCES, PNG_SOURCES = 16, 5
DJPEG = [
    [],
    ["--quality", "35"],
    ["--guide", "uniform", "--table", "photo"],
    ["--guide", "depth+detail", "--metadata", "all"],
    ["--guide", "text", "--metadata", "none", "--quality", "80"],
    ["--target-size", "15kB"],
]
ENCODE = [["--iterations", "2"], ["--iterations", "4", "--pack"]]


def photos(data: Path) -> list[Path]:
    """The same photos at every call: street scenes, natural ones, everyday ones, lossless ones, and
    the samples."""
    chosen: list[Path] = []
    for pattern in ("svt/photos/*.jpg", "bsds/*.jpg", "coco/images/*.jpg"):
        files = sorted(data.glob(pattern))
        chosen += files[:: max(1, len(files) // (JPEG_SOURCES // 2))][: JPEG_SOURCES // 2]
    return chosen + sorted(data.glob("kodak/*.png"))[:PNG_SOURCES]


def run(arguments: list[str], out: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "vizcomp",
        *arguments,
        "-o",
        str(out),
        "--jobs",
        "1",
        "--offline",
        "--quiet",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(
            f"{' '.join(arguments[:1])} exited with {result.returncode}: {result.stderr.strip()}"
        )


def digests(folder: Path, kinds: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of each output by its path; reports hold times, so they are left out."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in kinds)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def outputs(data: Path) -> dict[str, str]:
    """Path of each output and its SHA-256."""
    sources = photos(data)
    if not sources:
        sys.exit(f"no photos below {data}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        inputs = root / "in"
        inputs.mkdir()
        for i, source in enumerate(sources):
            (inputs / f"{i:03}_{source.name}").write_bytes(source.read_bytes())
        for i, options in enumerate(DJPEG):
            run(["djpeg", str(inputs), *options], root / "out" / f"djpeg{i}")
        run(["depth", str(inputs)], root / "out" / "depth")
        small = inputs.parent / "few"
        small.mkdir()
        for path in sorted(inputs.iterdir())[::6]:
            (small / path.name).write_bytes(path.read_bytes())
        for i, options in enumerate(ENCODE):
            pack = "--pack" in options
            run(
                ["encode", str(small), *options],
                root / "out" / (f"encode{i}.vzc" if pack else f"encode{i}"),
            )
        return digests(root / "out", (".jpg", ".png", ".vzc"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--write", type=Path, help="file for the digests")
    parser.add_argument("--against", type=Path, help="digests that an earlier version wrote")
    options = parser.parse_args()
    now = outputs(options.data)
    if options.write:
        options.write.write_text(json.dumps(now, indent=1))
    print(f"{len(now)} outputs")
    if options.against:
        before = json.loads(options.against.read_text())
        different = sorted(
            key for key in before.keys() | now.keys() if before.get(key) != now.get(key)
        )
        print(f"{len(before) - len(different)} of {len(before)} are the same", *different, sep="\n")
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
