"""Whether the promise of `vizcomp fit` is kept on real answers, and what it costs: redraws of
photos whose answers are all known.

Some ladders of settings are asked about every photo once, for all systems together. The answers
are remembered in the cache folder: a run that was stopped goes on, and a second one asks nothing.
Each redraw takes photos with replacement (Efron, Annals of Statistics 7, 1979), explores on one
part of them and certifies on the other, with the search and the tests of the package. The true
risk of a setting is its mean loss over all photos.

Naive: the smallest setting that passes on the very photos of the draw. Bytes: against the best
setting in hindsight, both over all photos. Floor: the smallest setting whose true risk is no more
than what the test lets pass on all photos of a draw, against the same; whoever knew the true order
of the settings could be sure of no less.

    python benchmarks/fit_real.py --cifar ../shared/data/cifar10.tar.xz --system inception \\
        --system watcher
    python benchmarks/fit_real.py --data ../shared/data/coco/images --data ../shared/data/bsds \\
        --system ../shared/models/yolox_nano.onnx --photos 400
    python benchmarks/fit_real.py ... --ask   # ask and remember, no redraws
"""

from __future__ import annotations

import argparse
import dataclasses
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
from vizcomp.fitting.candidates import Candidate, Pixels, ladders, named, refined
from vizcomp.fitting.inputs import input_of
from vizcomp.fitting.measure import Bench, Watch, Work
from vizcomp.fitting.memory import Memory, key_of
from vizcomp.fitting.sample import Unit, read_sample
from vizcomp.fitting.scores import Aim, Scores, passing, units_to_explore
from vizcomp.fitting.search import Order, certify, explore, seen_of

KINDS = (("jpeg", "photo"), ("webp", "auto"))
GRID = (50, 55, 64, 68, 72, 80, 83, 86, 88, 92, 94, 96)  # qualities beside those of the ladders
LEAST = 40  # a quality: nothing below it is asked about
CONFIDENCE = 0.95


def tried(pixels: Pixels) -> list[list[DjpegSettings]]:
    """Ladders without guide, of all pixels and of so many."""
    every = [ladder for one in {Pixels(), pixels} for ladder in ladders(["jpeg", "webp"], [one])]
    return [
        [one for one in ladder if one.quality >= LEAST]
        for ladder in every
        if ladder[0].guide == "uniform"
        and ladder[0].subsampling == "420"
        and (ladder[0].format, ladder[0].table) in KINDS
    ]


def cifar_photos(archive: Path) -> Path:
    """CIFAR-10's test pictures as files, in the cache folder."""
    folder = cache_folder() / "benchmarks" / "cifar-test"
    if not folder.exists():
        with tarfile.open(archive) as tar:
            for member in tar:
                opened = tar.extractfile(member) if "/test/" in member.name else None
                if opened is None:
                    continue
                target = folder / "-".join(Path(member.name).parts[-2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(opened.read())
    return folder


def everything(
    units: Sequence[Unit], settings: Sequence[Candidate], systems: Sequence[str], jobs: int
) -> dict[Candidate, Scores]:
    """The scores of all settings on all photos; remembered."""
    work = Work(systems=tuple(systems), jobs=jobs)
    prints = [one.fingerprint for one in work.open()]
    memory = Memory(key_of({"benchmark": "fit_real", "systems": prints}), resume=True)
    try:
        tell = Watch(lambda done, whole: print(f"{done:,} of {whole:,} answers", file=sys.stderr))
        return Bench(work, memory=memory).scores(settings, units, tell)
    finally:
        memory.close()


class Answers:
    """All that is known of some settings on all photos, to one system.

    Attributes:
        size, true: of each setting, its mean bytes and its true risk.
    """

    def __init__(self, known: dict[Candidate, Scores], system: int) -> None:
        self._known = {
            one: Scores(both.sizes, both.losses[[system]], both.moved[[system]])
            for one, both in known.items()
        }
        self.size = {one: float(both.sizes.mean()) for one, both in self._known.items()}
        self.true = {one: float(both.losses.mean()) for one, both in self._known.items()}

    @property
    def settings(self) -> list[Candidate]:
        return list(self._known)

    def scores(self, one: Candidate, drawn: npt.NDArray[np.int64]) -> Scores:
        """On photos by number, as often as they are named."""
        whole = self._known[one]
        return Scores(whole.sizes[drawn], whole.losses[:, drawn], whole.moved[:, drawn])

    def hindsight(self, risk: float) -> float:
        """Bytes of the smallest setting that keeps a risk."""
        return min(self.size[one] for one in self._known if self.true[one] <= risk)

    def tests(self, order: Order[Candidate]) -> list[Candidate]:
        """The tests of an order, each at the nearest quality that was asked about."""
        asked = refined(order.rungs, order.near, order.sizes)
        return list(dict.fromkeys(self._nearest(one) for one in asked))

    def _nearest(self, wanted: Candidate) -> Candidate:
        if wanted in self._known:
            return wanted
        alike = [
            one for one in self._known if dataclasses.replace(one, quality=wanted.quality) == wanted
        ]
        return min(alike, key=lambda one: abs(one.quality - wanted.quality))


def one_draw(
    names: Sequence[Sequence[Candidate]],
    answers: Answers,
    drawn: npt.NDArray[np.int64],
    risk: float,
    binary: bool,
) -> tuple[Candidate | None, Candidate | None]:
    """What is certified on a draw, and what the naive rule takes; None where nothing passes."""
    first = units_to_explore(len(drawn), risk, CONFIDENCE, binary=binary)
    aim = Aim(risk, CONFIDENCE, len(drawn) - first, (binary,))

    def measure(some: Sequence[Candidate], units: range) -> dict[Candidate, Scores]:
        return {one: answers.scores(one, drawn[units.start : units.stop]) for one in some}

    order, explored = explore(names, first, measure, aim)
    aim = aim.informed(seen_of(order, explored))
    tests = certify(answers.tests(order), lambda one: answers.scores(one, drawn[first:]), aim)
    passed = [test.setting for test in tests if test.passed]
    whole = {one: answers.scores(one, drawn) for one in answers.settings}
    fits = [one for one, both in whole.items() if both.worst <= risk]
    ours = min(passed, key=answers.size.__getitem__, default=None)
    return ours, min(fits, key=lambda one: float(whole[one].sizes.mean()), default=None)


def table_row(
    names: Sequence[Sequence[Candidate]],
    answers: Answers,
    count: int,
    *,
    photos: int,
    risk: float,
    draws: int,
    binary: bool,
) -> dict[str, Any]:
    """One row: how often the promise was broken, by us and by the naive rule, and the bytes."""
    rng = np.random.default_rng(0)
    hindsight = answers.hindsight(risk)
    broken = naive_broken = nothing = 0
    ratios = []
    for _ in range(draws):
        ours, naive = one_draw(names, answers, rng.integers(0, count, photos), risk, binary)
        naive_broken += naive is not None and answers.true[naive] > risk
        nothing += ours is None
        broken += ours is not None and answers.true[ours] > risk
        if ours is not None and answers.true[ours] <= risk:
            ratios.append(answers.size[ours] / hindsight)
    floor = None
    if binary:
        floor = answers.hindsight(passing(photos, risk, CONFIDENCE) / photos) / hindsight
    return {
        "photos": photos,
        "risk": risk,
        "broken": broken / draws,
        "naive_broken": naive_broken / draws,
        "nothing": nothing / draws,
        "bytes_over_hindsight": round(float(np.mean(ratios)), 3) if ratios else None,
        "median_over_hindsight": round(float(np.median(ratios)), 3) if ratios else None,
        "floor": None if floor is None else round(floor, 3),
    }


def asked_about(system: Any) -> tuple[list[list[DjpegSettings]], list[DjpegSettings]]:
    """The ladders for a system's input, and all settings that may be tested."""
    seen = input_of(system)
    pixels = Pixels()
    if seen is not None and getattr(system, "input_size", None):
        which = "short_side" if seen.crops else "max_side"
        pixels = Pixels(**{which: seen.side}, resample=seen.resample)  # type: ignore[arg-type]
    names = tried(pixels)
    settings = [one for ladder in names for one in ladder]
    for ladder in names:
        settings += [dataclasses.replace(ladder[0], quality=float(quality)) for quality in GRID]
    return names, list(dict.fromkeys(settings))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", default=[], metavar="PATH")
    parser.add_argument("--cifar", type=Path, metavar="ARCHIVE")
    parser.add_argument("--system", action="append", required=True)
    parser.add_argument("--photos", type=int, default=5000, help="at most so many are asked about")
    parser.add_argument("--sizes", default="300,1000", help="photos of a draw")
    parser.add_argument("--risks", default="0.05")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--ask", action="store_true", help="ask and remember, no redraws")
    parser.add_argument("--curves", action="store_true", help="print each setting's bytes and risk")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


def main() -> None:
    """Print a row for each system, number of photos and risk; `--json FILE` writes them."""
    options = parsed()
    paths = [*options.data, *([cifar_photos(options.cifar)] if options.cifar else [])]
    sample = read_sample(find_inputs(paths), unit="file", max_pixels=200_000_000)
    units = sample.units[: options.photos]
    opened = Work(systems=tuple(options.system)).open()
    names, settings = asked_about(opened[0])
    known = everything(units, settings, options.system, options.jobs)
    count = len(next(iter(known.values())).sizes)
    rows = []
    for at, name in enumerate([] if options.ask else options.system):
        print(f"{name}: {count} photos, {len(settings)} settings")
        answers = Answers(known, at)
        for one in sorted(answers.settings, key=answers.size.__getitem__) if options.curves else []:
            print(f"  {named(one)}: {answers.size[one]:,.0f} bytes, {answers.true[one]:.4f}")
        for risk in map(float, options.risks.split(",")):
            for photos in map(int, options.sizes.split(",")):
                row = table_row(
                    names,
                    answers,
                    count,
                    photos=photos,
                    risk=risk,
                    draws=options.draws,
                    binary=opened[at].kind == "classes",
                )
                rows.append({"system": name, "all": count, **row})
                print("  ".join(f"{title} {value}" for title, value in row.items()), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
