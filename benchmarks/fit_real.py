"""Whether the promise of `vizcomp fit` is kept on real answers: redraws of photos whose answers are
all known.

Every setting of some ladders is asked about every photo once; the answers are remembered in the
cache folder, so that a second run asks nothing. Each redraw takes photos with replacement (Efron,
Annals of Statistics 7, 1979), explores on 30% of them and certifies on the others, with the search
and the tests of the package. The true risk of a setting is its mean loss over all photos. Naive:
the smallest setting that passes on the very photos of the draw. Bytes: against the best setting in
hindsight, both over all photos.

    python benchmarks/fit_real.py --cifar ../shared/data/cifar10.tar.xz --photos 5000 \\
        --system inception
    python benchmarks/fit_real.py --data ../shared/data/coco/images --data ../shared/data/bsds \\
        --system ../shared/models/yolox_nano.onnx
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.files.place import cache_folder
from vizcomp.fitting.candidates import Candidate, Pixels, ladders, refined
from vizcomp.fitting.measure import Bench, Watch, Work
from vizcomp.fitting.memory import Memory, key_of
from vizcomp.fitting.sample import Unit, read_sample
from vizcomp.fitting.scores import Aim, Scores
from vizcomp.fitting.search import certify, explore

Array = npt.NDArray[np.float64]
KINDS = (("jpeg", "photo"), ("webp", "auto"))
CONFIDENCE = 0.95


def tried(pixels: Pixels) -> list[list[DjpegSettings]]:
    """Ladders without guide, of all pixels and of so many."""
    every = [ladder for one in {Pixels(), pixels} for ladder in ladders(["jpeg", "webp"], [one])]
    return [
        ladder
        for ladder in every
        if ladder[0].guide == "uniform" and (ladder[0].format, ladder[0].table) in KINDS
    ]


def cifar_photos(archive: Path) -> Path:
    """CIFAR-10's test pictures as files, in the cache folder."""
    folder = cache_folder() / "benchmarks" / "cifar-test"
    if not folder.exists():
        with tarfile.open(archive) as tar:
            members = [m for m in tar if m.isfile() and "/test/" in m.name]
        with tarfile.open(archive) as tar:
            for member in members:
                opened = tar.extractfile(member)
                assert opened is not None
                target = folder / "-".join(Path(member.name).parts[-2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(opened.read())
    return folder


def everything(
    units: Sequence[Unit], settings: Sequence[Candidate], system: str, jobs: int
) -> dict[Candidate, Scores]:
    """The scores of all settings on all photos; remembered."""
    work = Work(systems=(system,), jobs=jobs)
    (opened,) = work.open()
    memory = Memory(key_of({"benchmark": "fit_real", "system": opened.fingerprint}), resume=True)
    try:
        tell = Watch(lambda done, whole: print(f"{done:,} of {whole:,} answers", file=sys.stderr))
        return Bench(work, memory=memory).scores(settings, units, tell)
    finally:
        memory.close()


def one_draw(
    names: Sequence[Sequence[Candidate]],
    known: dict[Candidate, Scores],
    drawn: npt.NDArray[np.int64],
    risk: float,
    binary: bool,
) -> tuple[Candidate | None, Candidate | None]:
    """What is certified on a draw, and what the naive rule takes; None where nothing passes."""
    first = round(0.3 * len(drawn))
    aim = Aim(risk, CONFIDENCE, len(drawn) - first, (binary,))

    def scores(one: Candidate, part: npt.NDArray[np.int64]) -> Scores:
        whole = known[one]
        return Scores(whole.sizes[part], whole.losses[:, part], whole.moved[:, part])

    def measure(some: Sequence[Candidate], units: range) -> dict[Candidate, Scores]:
        return {one: scores(one, drawn[units.start : units.stop]) for one in some}

    sequence, _ = explore(names, first, measure, aim)
    order = [one for one in refined(sequence) if one in known]
    tests = certify(order, lambda one: scores(one, drawn[first:]), aim)
    passed = [test.setting for test in tests if test.passed]
    fits = [one for one in known if known[one].losses[:, drawn].mean() <= risk]
    ours = min(passed, key=lambda one: known[one].sizes.mean(), default=None)
    return ours, min(fits, key=lambda one: known[one].sizes[drawn].mean(), default=None)


def table_row(
    names: Sequence[Sequence[Candidate]],
    known: dict[Candidate, Scores],
    *,
    photos: int,
    risk: float,
    draws: int,
    binary: bool,
) -> dict[str, Any]:
    """One row: how often the promise was broken, by us and by the naive rule, and the bytes."""
    rng = np.random.default_rng(0)
    count = len(next(iter(known.values())).sizes)
    size = {one: float(scores.sizes.mean()) for one, scores in known.items()}
    true = {one: float(scores.losses.mean()) for one, scores in known.items()}
    hindsight = min(size[one] for one in known if true[one] <= risk)
    broken = naive_broken = nothing = 0
    ratios = []
    for _ in range(draws):
        ours, naive = one_draw(names, known, rng.integers(0, count, photos), risk, binary)
        naive_broken += naive is not None and true[naive] > risk
        nothing += ours is None
        broken += ours is not None and true[ours] > risk
        if ours is not None and true[ours] <= risk:
            ratios.append(size[ours] / hindsight)
    return {
        "photos": photos,
        "risk": risk,
        "broken": broken / draws,
        "naive_broken": naive_broken / draws,
        "nothing": nothing / draws,
        "bytes_over_hindsight": float(np.mean(ratios)) if ratios else None,
        "median_over_hindsight": float(np.median(ratios)) if ratios else None,
    }


def main() -> None:
    """Print a row for each number of photos and risk; `--json FILE` writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", default=[], metavar="PATH")
    parser.add_argument("--cifar", type=Path, metavar="ARCHIVE")
    parser.add_argument("--system", required=True)
    parser.add_argument("--photos", type=int, default=5000, help="at most so many are asked about")
    parser.add_argument("--sizes", default="300,1000", help="photos of a draw")
    parser.add_argument("--risks", default="0.05")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    paths = [*options.data, *([cifar_photos(options.cifar)] if options.cifar else [])]
    sample = read_sample(find_inputs(paths), unit="file", max_pixels=200_000_000)
    units = sample.units[: options.photos]
    (opened,) = Work(systems=(options.system,)).open()
    size = getattr(opened, "input_size", None)
    pixels = Pixels()
    if size is not None:
        which = "short_side" if getattr(opened, "crops", False) else "max_side"
        pixels = Pixels(**{which: max(size)}, resample=opened.resample)
    names = tried(pixels)
    steps = [refined(ladder[::-1]) for ladder in names]
    settings = list(dict.fromkeys(one for ladder in steps for one in ladder))
    known = everything(units, settings, options.system, options.jobs)
    print(f"{options.system}: {len(units)} photos, {len(settings)} settings")
    rows = []
    for risk in map(float, options.risks.split(",")):
        for photos in map(int, options.sizes.split(",")):
            row = table_row(
                names,
                known,
                photos=photos,
                risk=risk,
                draws=options.draws,
                binary=opened.kind == "classes",
            )
            rows.append({"system": options.system, "all": len(units), **row})
            print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
