"""Mutates files of every kind that comes from outside, and opens them in a process with limits of
memory and time:

    python tests/fuzz/guard.py                           20,000 of each kind: some minutes
    python tests/fuzz/guard.py --trials 1000000 --seed 7 --kinds jpeg pack

Each must end in a result or in a `VizcompError`. A crash, any other exception, more memory than the
limit, or more seconds is a
finding: its file is kept, and the run goes on after it. Trial N of a seed is always the same file.
`tests/whole/test_hostile.py` runs a part of this in each test run, and all of it where slow tests
are asked for.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import dataclasses
import importlib.util
import io
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
MB = 1 << 20
TINY_WATCHER = {"channels": (4, 4, 4), "classes": 2}


def load(name: str) -> ModuleType:
    """A neighbour of this file, by path: `tests` is no package."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


jpeg, vzc_files, structure, texts = load("jpeg"), load("vzc"), load("structure"), load("texts")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file: whole ones, how they are damaged, how they are opened; what it may take of
    memory and seconds."""

    corpus: Callable[[], list[bytes]]
    make: Callable[[list[bytes], random.Random], bytes]
    end: Callable[[bytes, random.Random], str]
    memory: int = 256 * MB
    seconds: int = 5


def near_the_start(files: list[bytes], dice: random.Random) -> bytes:
    return vzc_files.mutate(dice.choice(files), dice, files)  # type: ignore[no-any-return]


def cut_or_changed(files: list[bytes], dice: random.Random) -> bytes:
    """Half of them cut anywhere, half changed."""
    data = dice.choice(files)
    return (
        data[: dice.randrange(len(data))]
        if dice.random() < 0.5
        else vzc_files.mutate(data, dice, files)
    )


def make_jpeg(files: list[bytes], dice: random.Random) -> bytes:
    return jpeg.mutate(dice.choice(files), dice, files)  # type: ignore[no-any-return]


def vzc_or_forged(files: list[bytes], dice: random.Random) -> bytes:
    make = (
        vzc_files.forge
        if dice.random() < 0.3
        else lambda data, *rest: vzc_files.mutate(data, *rest)
    )
    return make(dice.choice(files), dice, files)  # type: ignore[no-any-return]


def read_vzc(data: bytes, dice: random.Random) -> str:
    vzc_files.read(data)
    return "read"


def of_kind(kind: str) -> list[bytes]:
    from vizcomp.vzc import image as vzc

    return [data for data in vzc_files.corpus() if vzc.kind(data) == kind]


def photos() -> list[bytes]:
    """A small photo in every format, with a profile, metadata and several frames where it can have
    them."""
    import numpy as np
    from PIL import Image, ImageCms

    pixels = (
        np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    files = []
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM"):
        for mode in ("RGB", "L", "RGBA", "CMYK", "P"):
            image = Image.fromarray(pixels[..., :3] if mode != "RGBA" else pixels).convert(mode)
            for options in (
                {},
                {"icc_profile": profile, "exif": exif},
                {"save_all": True, "append_images": [image.rotate(90)]},
            ):
                out = io.BytesIO()
                try:
                    image.save(out, kind, **options)
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # not every format has every mode
                files.append(out.getvalue())
    return files


def read_photo(data: bytes, dice: random.Random) -> str:
    from vizcomp.photos.frame import upright
    from vizcomp.photos.photo import load_bytes, to_srgb

    photo = load_bytes(data, "it", max_pixels=1_000_000)
    upright(to_srgb(photo)[0], photo.orientation)
    return "read"


def opened(suffix: str, data: bytes, opening: Callable[[Path], object]) -> str:
    """A file on disk, since that is what these are read from."""
    path = Path(tempfile.gettempdir()) / f"vizcomp-fuzz-{os.getpid()}{suffix}"
    path.write_bytes(data)
    try:
        opening(path)
    finally:
        path.unlink()
    return "read"


def safetensors_files() -> list[bytes]:
    import torch

    from vizcomp.nets.classifiers import build, save

    sys.path.insert(0, str(HERE.parent))
    from kit import tiny_codec

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        classifier = Path(folder) / "classifier.safetensors"
        save(classifier, "watcher", build("watcher", TINY_WATCHER), ("a", "b"), {"name": "tiny"})
        return [
            tiny_codec(Path(folder) / "codec.safetensors").read_bytes(),
            classifier.read_bytes(),
        ]


ODD = (
    0,
    -1,
    1,
    2,
    255,
    1 << 31,
    1 << 63,
    1e308,
    -0.5,
    "",
    "F64",
    "BF16",
    "../x",
    "photo",
    None,
    True,
    [],
    [1 << 40],
    {},
    [[0]],
)


def forge_safetensors(data: bytes, dice: random.Random) -> bytes:
    """One to three values of the header, or of the configuration in it, replaced by odd ones; all
    lengths fit."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    words = json.loads(header["__metadata__"]["vizcomp"])
    for _ in range(dice.choice((1, 1, 2, 3))):
        place: Any = words if dice.random() < 0.7 else header
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = dice.choice(keys)
            if not isinstance(place[key], dict | list) or not place[key] or dice.random() < 0.2:
                if isinstance(place, dict) and dice.random() < 0.2:
                    del place[key]
                else:
                    place[key] = copy.deepcopy(dice.choice(ODD))
                break
            place = place[key]
    if isinstance(header.get("__metadata__"), dict) and "vizcomp" in header["__metadata__"]:
        header["__metadata__"]["vizcomp"] = json.dumps(words)
    made = json.dumps(header).encode()
    return len(made).to_bytes(8, "little") + made + data[8 + length :]


def make_safetensors(files: list[bytes], dice: random.Random) -> bytes:
    return (
        forge_safetensors(dice.choice(files), dice)
        if dice.random() < 0.6
        else cut_or_changed(files, dice)
    )


def read_safetensors(data: bytes, dice: random.Random) -> str:
    from vizcomp.neural.codec import NeuralCodec
    from vizcomp.vision.systems import open_system

    def opening(path: Path) -> None:
        if dice.random() < 0.5:
            NeuralCodec.load(path)
        else:
            open_system(str(path))

    return opened(".safetensors", data, opening)


def onnx_files() -> list[bytes]:
    """A classifier of a few layers, and one whose graph names more kinds of nodes."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def model(nodes: list[Any], weights: dict[str, Any]) -> bytes:
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 8, 8])
        found = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 5])
        stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        graph = helper.make_graph(nodes, "tiny", [given], [found], stored)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        return made.SerializeToString()

    rng = np.random.default_rng(0)
    conv = rng.normal(size=(5, 3, 3, 3)).astype(np.float32)
    flat = [
        helper.make_node("Conv", ["input", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["output"]),
    ]
    shaped = [
        helper.make_node("MaxPool", ["input"], ["a"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Gemm", ["b", "m", "bias"], ["c"], transB=1),
        helper.make_node("Softmax", ["c"], ["output"], axis=1),
    ]
    matrix = rng.normal(size=(5, 12)).astype(np.float32)
    return [
        model(flat, {"w": conv}),
        model(shaped, {"shape": np.array([-1, 12]), "m": matrix, "bias": np.zeros(5, np.float32)}),
    ]


def read_onnx(data: bytes, dice: random.Random) -> str:
    import numpy as np

    from vizcomp.vision.systems import open_system

    def opening(path: Path) -> None:
        open_system(str(path)).answers([np.zeros((8, 8, 3), np.uint8)])

    return opened(".onnx", data, opening)


KINDS = {
    "jpeg": Kind(jpeg.seeds, make_jpeg, jpeg.end_of),
    "photo": Kind(photos, make_jpeg, read_photo, memory=512 * MB),
    "vzc": Kind(lambda: of_kind("image"), vzc_or_forged, read_vzc),
    "pack": Kind(lambda: of_kind("pack"), vzc_or_forged, read_vzc),
    "safetensors": Kind(safetensors_files, make_safetensors, read_safetensors, memory=1024 * MB),
    "onnx": Kind(onnx_files, cut_or_changed, read_onnx, memory=1024 * MB),
    # by structure: lengths and checksums are right, what they enclose is not
    "segments": Kind(
        lambda: structure.photos("JPEG"),
        structure.make_photo,
        structure.compress_photo,
        memory=512 * MB,
    ),
    "chunks": Kind(
        lambda: structure.photos("PNG"),
        structure.make_photo,
        structure.compress_photo,
        memory=512 * MB,
    ),
    "riff": Kind(
        lambda: structure.photos("WEBP"),
        structure.make_photo,
        structure.compress_photo,
        memory=512 * MB,
    ),
    "directories": Kind(
        lambda: structure.photos("TIFF"),
        structure.make_photo,
        structure.compress_photo,
        memory=512 * MB,
    ),
    "boxes": Kind(
        lambda: structure.photos("AVIF", "HEIF"),
        structure.make_photo,
        structure.compress_photo,
        memory=1024 * MB,
    ),
    "jxl": Kind(
        structure.jxl_containers, structure.make_photo, structure.compress_photo, memory=1024 * MB
    ),
    "maps": Kind(structure.maps, structure.make_map, structure.read_map, memory=512 * MB),
    "messages": Kind(onnx_files, structure.make_onnx, read_onnx, memory=1024 * MB),
    "states": Kind(
        structure.state_dicts, structure.make_state_dict, structure.read_states, memory=512 * MB
    ),
    "keras": Kind(
        structure.keras_files,
        structure.make_keras,
        structure.read_hdf5,
        memory=1024 * MB,
        seconds=30,
    ),
    "tar": Kind(structure.tars, structure.make_tar, structure.read_tar, memory=512 * MB),
    "parquet": Kind(
        structure.parquets, structure.make_parquet, structure.read_parquet, memory=1024 * MB
    ),
    "texts": Kind(texts.texts, texts.make_text, texts.read_text, memory=512 * MB),
}


def trial_file(
    kind: Kind, files: list[bytes], seed: int, number: int
) -> tuple[bytes, random.Random]:
    dice = random.Random(f"{seed}:{number}")
    return kind.make(files, dice), dice


def child(name: str, seed: int, first: int, last: int, mark: int) -> None:
    """Trials in a process with limits; tells where it is by 8 bytes in the file `mark`, and its
    findings and ends by lines."""
    from vizcomp.errors import VizcompError

    kind = KINDS[name]
    files = kind.corpus()
    # loads what there is to load before the limits are set
    for data, luck in itertools.product(files, range(4)):
        with contextlib.suppress(VizcompError):
            kind.end(data, random.Random(luck))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + kind.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    ends: collections.Counter[str] = collections.Counter()
    for number in range(first, last):
        os.pwrite(mark, number.to_bytes(8, "little"), 0)
        data, dice = trial_file(kind, files, seed, number)
        # nobody handles them: they end the process. Seconds of the processor, so that a busy
        # machine makes no findings; by the clock much later, for what sleeps.
        signal.setitimer(signal.ITIMER_PROF, kind.seconds)
        signal.setitimer(signal.ITIMER_REAL, 60 * kind.seconds)
        try:
            ends[kind.end(data, dice)] += 1
        except VizcompError as exc:
            ends[type(exc).__name__] += 1
            if len(exc.message.splitlines()) != 1:
                print(
                    json.dumps({"found": number, "what": f"not one line: {exc.message!r}"}),
                    flush=True,
                )
        except BaseException:
            print(json.dumps({"found": number, "what": traceback.format_exc()}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps({"ends": ends}), flush=True)


@dataclasses.dataclass
class Outcome:
    """What many trials of a kind ended in."""

    trials: int = 0
    ends: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    findings: dict[int, str] = dataclasses.field(default_factory=dict)


def run(name: str, trials: int, seed: int = 0, most_findings: int = 20) -> Outcome:
    """Trials 0 to `trials` of a kind, in as many processes as crashes make necessary."""
    found = Outcome()
    with tempfile.TemporaryFile() as mark:
        first = 0
        while first < trials and len(found.findings) < most_findings:
            command = [
                sys.executable,
                __file__,
                "--child",
                name,
                str(seed),
                str(first),
                str(trials),
                str(mark.fileno()),
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, capture_output=True, text=True, pass_fds=[mark.fileno()], env=environment
            )
            for line in done.stdout.splitlines():
                told = json.loads(line) if line.startswith("{") else {}
                found.ends.update(told.get("ends", {}))
                if "found" in told:
                    found.findings[told["found"]] = told["what"]
            if done.returncode == 0:
                found.trials = trials
                break
            number = int.from_bytes(os.pread(mark.fileno(), 8, 0), "little")
            if number < first or "Traceback" in done.stderr:
                raise RuntimeError(done.stderr)
            found.findings[number] = (
                f"the process ended with {done.returncode}: {done.stderr[-500:]}"
            )
            first = found.trials = number + 1
    return found


def here(name: str, trials: int, seed: int) -> collections.Counter[str]:
    """Trials in this process and without limits: for `coverage run`."""
    from vizcomp.errors import VizcompError

    kind, ends = KINDS[name], collections.Counter[str]()
    files = kind.corpus()
    for number in range(trials):
        data, dice = trial_file(kind, files, seed, number)
        try:
            ends[kind.end(data, dice)] += 1
        except VizcompError as exc:
            ends[type(exc).__name__] += 1
    return ends


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        name, *numbers = sys.argv[2:]
        child(name, *map(int, numbers))
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="where the files of findings go"
    )
    parser.add_argument("--here", action="store_true", help="in this process, without limits")
    given = parser.parse_args()
    bad = 0
    for name in given.kinds:
        if given.here:
            print(f"{name}: {dict(here(name, given.trials, given.seed).most_common())}", flush=True)
            continue
        found = run(name, given.trials, given.seed)
        print(
            f"{name}: {found.trials} files, {len(found.findings)} findings,"
            f" {dict(found.ends.most_common())}",
            flush=True,
        )
        files = KINDS[name].corpus() if found.findings else []
        for number, what in found.findings.items():
            bad += 1
            given.keep.mkdir(exist_ok=True)
            path = given.keep / f"{name}-{given.seed}-{number}"
            path.write_bytes(trial_file(KINDS[name], files, given.seed, number)[0])
            print(f"  {path}: {what}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
