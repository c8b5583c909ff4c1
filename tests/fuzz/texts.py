"""Texts that vizcomp reads from outside or keeps for itself, changed by their structure, and how
each is read.

Labels, options of models, policies, configuration files and recipes; journals, the parts of an
evaluation, records of the cache.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import os
import random
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    """A neighbour of this file, by path: `tests` is no package."""
    if f"fuzz_{name}" not in sys.modules:
        spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[f"fuzz_{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[f"fuzz_{name}"]


containers, archives, structure = load("containers"), load("archives"), load("structure")

COCO = {
    "info": {"year": 2026},
    "images": [
        {"id": 1, "file_name": "a/x.jpg", "width": 56, "height": 40},
        {"id": "2", "file_name": "y.jpg"},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "bbox": [1, 2, 30, 20.5],
            "area": 600.0,
            "segmentation": [[1, 2, 30, 2, 30, 20]],
            "keypoints": [1, 2, 2],
        },
        {"id": 2, "image_id": 1, "segmentation": {"size": [40, 56], "counts": [100, 40, 2100]}},
        {"id": 3, "image_id": "2", "bbox": [0, 0, 1, 1]},
    ],
}
VOC = """<annotation><filename>x.jpg</filename>
<size><width>56</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20.5</ymax></bndbox></object></annotation>"""
YOLO = "0 0.5 0.5 0.25 0.25\n3 0.1 0.1 0.2 0.1 0.3 0.4\n"
OPTIONS = {
    "size": [32, 32],
    "mean": [0.5, 0.5, 0.5],
    "std": [1, 1, 1],
    "kind": "classes",
    "classes": ["a", "b"],
    "least": 0.4,
    "crop": 0.9,
}
DEPTH = {"size": [64, 48], "norm": "imagenet", "multiple": 14, "polarity": "near", "fit": "aspect"}
HUGGING = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"width": 64, "height": 64},
    "rescale_factor": 0.00392,
    "ensure_multiple_of": 14,
}
RECORDS = {"nyu": {"sha256": "0" * 64, "bytes": 3, "mtime_ns": 5, "source": "x", "words": "y"}}
CONFIG = """jobs = 1
quality = 40
[djpeg]
guide = "uniform"
verify = ["text"]
[profiles.a]
strength = 0.5
[profiles.a.djpeg]
min-saving = "5%"
"""


def policy_text() -> str:
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.fitting.policy import Certificate, CertifiedSystem, Policy

    certificate = Certificate(
        risk=0.01, confidence=0.95, photos=400, changed=1, bound=0.009, date="2026-01-01"
    )
    system = CertifiedSystem(name="text", fingerprint="0" * 12)
    return Policy(
        settings=DjpegSettings(quality=40, guide="uniform"),
        certificate=certificate,
        systems=(system,),
    ).to_toml()


def texts() -> list[bytes]:
    """Each with the name of its kind before it."""
    some = {
        "coco": COCO,
        "options": OPTIONS,
        "depth": DEPTH,
        "hugging": HUGGING,
        "records": RECORDS,
    }
    made = [f"{name}:{json.dumps(value)}" for name, value in some.items()]
    made += [
        f"voc:{VOC}",
        f"yolo:{YOLO}",
        f"policy:{policy_text()}",
        f"config:{CONFIG}",
        f"recipe:{CONFIG}",
    ]
    made += [
        f"journal:{json.dumps(record_of_djpeg())}",
        f"part:{json.dumps([[['a', 1, [], 0.1, 0.2]], ['b'], [['a', 'b', 1]]])}",
    ]
    return [one.encode() for one in made]


def record_of_djpeg() -> dict[str, Any]:
    from vizcomp.batch.records import FileRecord

    return FileRecord(
        input="a.jpg", output="out/a.jpg", status="ok", width=8, height=8, notices=("x",), psnr=30.0
    ).to_dict()


def make_text(files: list[bytes], dice: random.Random) -> bytes:
    name, _, data = dice.choice(files).partition(b":")
    if name in (b"policy", b"config", b"recipe"):
        change = archives.stir_toml
    else:
        change = {b"voc": archives.stir_xml, b"yolo": archives.stir_lines}.get(
            name, archives.stir_json
        )
    data = change(data, dice) if dice.random() < 0.85 else containers.stir_bytes(data, dice)
    return name + b":" + data


def read_text(data: bytes, dice: random.Random) -> str:
    name, _, data = data.partition(b":")
    with structure.place("a.json", data) as path:
        READERS[name.decode()](path)
    return "read"


def _coco(path: Path) -> None:
    from vizcomp.datasets.coco_labels import CocoLabels

    labels, result = CocoLabels(path), _result()
    moves = {}
    for index in labels.images_of(Path("a/x.jpg")):
        with contextlib.suppress(ValueError):
            moves[index] = result, labels.move(index, result)
    json.loads(labels.moved(moves))


def _voc(path: Path) -> None:
    from vizcomp.datasets import voc_labels

    with contextlib.suppress(ValueError):  # `batch.labels` says it of the photo
        voc_labels.moved(path, _result())


def _yolo(path: Path) -> None:
    from vizcomp.datasets import yolo_labels

    with contextlib.suppress(ValueError):
        yolo_labels.checked(path)


def _result() -> Any:
    from vizcomp.datasets.moved_labels import Result

    return Result(
        name="x.jpg",
        output="x.jpg",
        size=(56, 40),
        orientation=6,
        output_size=(28, 20),
        turned=True,
    )


def _options(path: Path) -> None:
    from vizcomp.vision.options import read_options

    read_options(path)


def _depth(path: Path) -> None:
    from vizcomp.depth.published import reading_beside

    reading_beside(path)


def _hugging(path: Path) -> None:
    from vizcomp.depth.published import reading_beside

    os.rename(path, path.with_name("preprocessor_config.json"))
    reading_beside(path)


def _records(path: Path) -> None:
    from vizcomp.weights import cache, table

    with _cache(path.parent):
        os.rename(path, path.with_name("records.json"))
        cache.recorded("nyu")
        cache.added()
        for row in table.PUBLISHED:
            cache.state(row)


def _policy(path: Path) -> None:
    from vizcomp.fitting.policy import Policy

    Policy.read(path)


def _config(path: Path) -> None:
    """The whole command, which ends since its input is not there."""
    from unittest import mock

    from vizcomp import cli

    command = [
        "vizcomp",
        "djpeg",
        str(path.parent / "nothing"),
        "-o",
        str(path.parent / "out"),
        "--config",
        str(path),
    ]
    quiet = contextlib.redirect_stderr(io.StringIO())
    with mock.patch.object(sys, "argv", command), quiet, contextlib.suppress(SystemExit):
        cli.main()


def _recipe(path: Path) -> None:
    from vizcomp.training.settings import read_recipe

    read_recipe(path)


def _journal(path: Path) -> None:
    """A row whose record is another one: the run does the work again, or shows what it can."""
    from vizcomp.batch.djpeg import run_djpeg
    from vizcomp.batch.loop import RunOptions
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.files.find import find_inputs

    with _cache(path.parent / "cache"):
        folder, out = path.parent / "in", path.parent / "out"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(photo())
        settings = DjpegSettings(quality=40, guide="uniform")
        for resume in (False, True):
            run = run_djpeg(
                find_inputs([folder]),
                out,
                settings,
                BatchSettings(resume=resume),
                RunOptions(jobs=1),
            )
            assert [record.status for record in run.records] in (["ok"], ["kept"]), run.records
            for base in (path.parent / "cache").rglob("*.sqlite"):
                with contextlib.closing(sqlite3.connect(base)) as journal, journal:
                    journal.execute(
                        "UPDATE outputs SET record = ?",
                        (path.read_bytes().decode("utf-8", "replace"),),
                    )


@functools.cache
def photo() -> bytes:
    return structure.photos("JPEG")[0]  # type: ignore[no-any-return]


def _part(path: Path) -> None:
    from vizcomp.evaluation.tasks import ChunkResult

    ChunkResult.from_bytes(zlib.compress(path.read_bytes()))


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("VIZCOMP_CACHE")
    os.environ["VIZCOMP_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["VIZCOMP_CACHE"]
        else:
            os.environ["VIZCOMP_CACHE"] = before


READERS: dict[str, Callable[[Path], None]] = {
    "coco": _coco,
    "voc": _voc,
    "yolo": _yolo,
    "options": _options,
    "depth": _depth,
    "hugging": _hugging,
    "records": _records,
    "policy": _policy,
    "config": _config,
    "recipe": _recipe,
    "journal": _journal,
    "part": _part,
}
