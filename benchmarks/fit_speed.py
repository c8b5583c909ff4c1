"""How long a fit takes, and whether a policy runs at djpeg's own speed.

A fit of 1,000 photos with a classifier that takes 30 ms of a core for each; then `djpeg --policy`
and djpeg with the same settings as options, in turns on the same photos. The photos are parts of
those in a folder, so that there are enough that differ. What counts is processor time, of all
processes together: a busy machine is no excuse and no reason.

    python benchmarks/fit_speed.py --data ../shared/data/coco/images --photos 1000 --jobs 2
    python benchmarks/fit_speed.py --data ../shared/data/coco/images --photos 150 --no-rivals
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from slow_system import slow

import vizcomp
from vizcomp.fitting.candidates import named
from vizcomp.fitting.policy import Policy
from vizcomp.photos.encode import encode_plain_jpeg

SIDE = (480, 360)


def write_parts(sources: list[Path], count: int, folder: Path) -> None:
    """Parts of photos, each another one, as JPEG of quality 90."""
    rng = np.random.default_rng(0)
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as image:
            whole = image.convert("RGB")
        left = int(rng.integers(0, max(1, whole.width - SIDE[0])))
        top = int(rng.integers(0, max(1, whole.height - SIDE[1])))
        part = whole.crop((left, top, left + SIDE[0], top + SIDE[1]))
        data = encode_plain_jpeg(np.asarray(part), quality=90)
        (folder / f"{number:05}.jpg").write_bytes(data)


def processor_seconds() -> float:
    """Of this process and those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def djpeg_seconds(photos: Path, out: Path, options: list[str]) -> float:
    started = processor_seconds()
    words = ["djpeg", str(photos), "-o", str(out), "--quiet", "-j", "1", *options]
    subprocess.run([sys.executable, "-m", "vizcomp", *words], check=True)
    return processor_seconds() - started


def main() -> None:
    """Print processor seconds of a fit, answers asked, and the ratio of djpeg's times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--risk", type=float, default=0.05)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--no-rivals", action="store_true")
    options = parser.parse_args()
    sources = sorted(path for path in options.data.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        write_parts(sources, options.photos, folder)
        system = vizcomp.System(slow, kind="classes", name="thirty-ms")
        started, clock = processor_seconds(), time.perf_counter()
        fitted = vizcomp.fit(
            [folder],
            system,
            risk=options.risk,
            rivals=not options.no_rivals,
            jobs=options.jobs,
            on_progress=print,
        )
        seconds = processor_seconds() - started
        print(
            f"fit: {options.photos} photos, {fitted.asked:,} answers, {seconds:.0f} s of processors"
            f" ({1000 * seconds / fitted.asked:.0f} ms an answer),"
            f" {time.perf_counter() - clock:.0f} s by the clock"
        )
        print(f"     {named(fitted.policy.settings)}; {fitted.policy.certificate.sentence}")
        policy = Path(name) / "policy.toml"
        # the speed of a guide that takes networks is what could be lost
        guided = dataclasses.replace(
            fitted.policy,
            settings=vizcomp.DjpegSettings(quality=50, guide="depth+text", strength=0.25),
            encoder="",  # this one's: the format may be another
        )
        guided.write(policy)
        settings = Policy.read(policy).settings
        words = ["--quality", f"{settings.quality:g}", "--guide", settings.guide]
        words += ["--strength", f"{settings.strength:g}", "--table", settings.table]
        few = Path(name) / "few"
        few.mkdir()
        for path in sorted(folder.iterdir())[:60]:
            path.rename(few / path.name)
        times: dict[str, list[float]] = {"policy": [], "options": []}
        for turn in range(options.turns):
            for kind, extra in (("policy", ["--policy", str(policy)]), ("options", words)):
                times[kind].append(djpeg_seconds(few, Path(name) / f"{kind}{turn}", extra))
        ratio = min(times["policy"]) / min(times["options"])
        print(f"djpeg --policy takes {ratio:.2f} of djpeg with the same settings as options")


if __name__ == "__main__":
    main()
