"""The run time of the recurrent codec beside another version of it: speed, cold start, and what the
classifiers still see.

    python benchmarks/codec_runtime.py --data ../shared/data/cifar10.tar.xz \\
        --photo ../shared/data/kodak/kodim04.png \
        [--against ../other/src] [--images 500] [--rounds 3]

Each version runs in processes of its own, in turn, on one thread; CPU seconds, the least of the
rounds. `--against` is the folder `src` of another checkout. What is compared are ratios: the
seconds are of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORK = """
import json, sys, time
import numpy as np
from PIL import Image
with __import__("contextlib").suppress(ImportError):
    import torch; torch.set_num_threads(1)
from vizcomp.datasets.read import read_labelled
from vizcomp.neural.codec import NeuralCodec
from vizcomp.vision.systems import open_system
data, photo, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
out = {}
def timed(work):
    began = time.process_time(); found = work(); return found, time.process_time() - began
image = np.asarray(Image.open(photo).convert("RGB"))
codec = NeuralCodec.load("photo")
codec.decode(codec.encode(image[:64, :64]))
file, out["photo encode"] = timed(lambda: codec.encode(image))
_, out["photo decode"] = timed(lambda: codec.decode(file))
out["photo bytes"] = len(file)
test = read_labelled(__import__("pathlib").Path(data), part="test")
chosen = np.linspace(0, len(test.labels) - 1, count).astype(int)
images, labels = test.images[chosen], test.labels[chosen]
codec = NeuralCodec.load("cifar")
codec.encode_many(images[:8])
files, out["cifar encode, default"] = timed(lambda: codec.encode_many(images))
plain, out["cifar encode, --search 0"] = timed(lambda: codec.encode_many(images, search=0))
_, out["cifar decode, one by one"] = timed(lambda: [codec.decode(f) for f in files])
if len(sys.argv) > 4:
    rows = []
    systems = [open_system(name) for name in ("inception", "watcher")]
    def share(system, pictures):
        return float(np.mean([a.best == l for a, l in zip(system.answers(list(pictures)), labels)]))
    def seen(pictures): return [share(system, pictures) for system in systems]
    rows.append(["sources", 0.0, *seen(images), 0.0])
    for search in (0, None):
        for many in range(1, codec.iterations + 1):
            files = codec.encode_many(images, iterations=many, search=search)
            found = np.stack([codec.decode(f).image for f in files])
            error = ((found.astype(float) - images) ** 2).mean((1, 2, 3))
            size = float(np.mean([len(f) for f in files]))
            name = f"{many} iterations, {'mended' if search is None else 'plain'}"
            rows.append([name, size, *seen(found), float((10 * np.log10(255**2 / error)).mean())])
    out["seen"] = rows
print(json.dumps(out))
"""


def ran(source: Path, *arguments: str) -> tuple[str, float]:
    """What a Python process prints, and its CPU seconds."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **threads, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{source}: exit code {process.returncode}")
    return out, usage.ru_utime + usage.ru_stime


def measured(source: Path, args: argparse.Namespace, folder: Path, *, seen: bool) -> dict[str, Any]:
    """One round of one version."""
    small = folder / "one.png"
    found: dict[str, Any] = {}
    for name, command in (
        ("cold: --help", ["--help"]),
        (
            "cold: encode one.png",
            [
                "encode",
                str(small),
                "-o",
                str(folder / "one.vzc"),
                "--overwrite",
                "--jobs",
                "1",
                "--quiet",
            ],
        ),
        (
            "cold: decode one.vzc",
            [
                "decode",
                str(folder / "one.vzc"),
                "-o",
                str(folder / "back"),
                "--overwrite",
                "--quiet",
            ],
        ),
    ):
        found[name] = ran(source, "-m", "vizcomp", *command)[1]
    out, _ = ran(
        source,
        "-c",
        WORK,
        str(args.data),
        str(args.photo),
        str(args.images),
        *(["seen"] if seen else []),
    )
    return found | json.loads(out.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="the folder src of another checkout")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seen",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask the classifiers too",
    )
    args = parser.parse_args()
    from PIL import Image

    here = Path(__file__).resolve().parents[1] / "src"
    sources = {"here": here} | ({"there": args.against.resolve()} if args.against else {})
    best: dict[str, dict[str, Any]] = {name: {} for name in sources}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Image.open(args.photo) as photo:
            photo.convert("RGB").resize((128, 96)).save(folder / "one.png")
        began = time.time()
        for index in range(args.rounds):
            for version, source in sources.items():
                for key, value in measured(
                    source, args, folder, seen=args.seen and index == 0
                ).items():
                    old = best[version].get(key)
                    best[version][key] = (
                        min(old, value)
                        if isinstance(value, float) and old is not None
                        else old or value
                    )
    pixels = Image.open(args.photo).size
    print(
        f"{args.photo.name}, {pixels[0]}x{pixels[1]}; {args.images} test images of CIFAR-10;"
        f" {time.time() - began:.0f} s in all"
    )
    print(
        f"{'CPU seconds':30}"
        + "".join(f"{version:>10}" for version in sources)
        + ("     ratio" if args.against else "")
    )
    for key, value in best["here"].items():
        if isinstance(value, float):
            row = [best[version].get(key, float("nan")) for version in sources]
            print(
                f"{key:30}"
                + "".join(f"{x:10.3f}" for x in row)
                + (f"{row[1] / row[0]:10.2f}" if args.against else "")
            )
    megapixels = pixels[0] * pixels[1] / 1e6
    for version, values in best.items():
        photo = [megapixels / values[f"photo {what}"] for what in ("encode", "decode")]
        small = [
            args.images / values[f"cifar {what}"]
            for what in ("encode, default", "decode, one by one")
        ]
        print(
            f"{version}, a CPU second: {photo[0]:.3f} megapixels to encode as photo"
            f" ({values['photo bytes']} bytes), {photo[1]:.3f} to decode; {small[0]:.0f} images to"
            f" encode as cifar by default, {small[1]:.0f} to decode"
        )
        for name, size, *figures in values.get("seen", []):
            print(
                f"  {name:24} {size:7.2f} bytes  inception {figures[0]:.3f}  watcher"
                f" {figures[1]:.3f}  PSNR {figures[2]:.2f}"
            )


if __name__ == "__main__":
    main()
