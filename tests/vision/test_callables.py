"""Python callables as vision systems: answers of every kind, wrong ones, names, other processes."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import vizcomp
from vizcomp.batch.about import systems_of
from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.engines import map_tasks
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import find_inputs
from vizcomp.vision.answers import Answer, Boxes, Classes, Embedding, Keypoints, Masks, Text
from vizcomp.vision.callables import System, living_system
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

IMAGE = np.zeros((40, 60, 3), np.uint8)


def brightness(image: npt.NDArray[np.uint8]) -> list[float]:
    share = float(image.mean()) / 255
    return [share, 1 - share]


def bright_place(image: npt.NDArray[np.uint8]) -> list[list[float]]:
    rows, columns = np.nonzero(image.mean(2) > 128)
    return [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []


def answer(kind: Any, value: Any, **more: Any) -> Answer:
    return System(lambda _: value, kind, **more).answers([IMAGE])[0]


def test_every_kind_of_answer() -> None:
    classes = answer("classes", np.array([0.2, 0.8]), classes=["cat", "dog"])
    assert isinstance(classes, Classes)
    assert classes.words() == "dog 80%"
    boxes = answer(
        "boxes",
        {"boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "scores": [0.9, 0.1], "labels": [1, 0]},
        classes=["a", "b"],
    )
    assert isinstance(boxes, Boxes)
    assert (boxes.labels, boxes.quads[0, 2].tolist(), boxes.size) == (("b",), [3, 4], (60, 40))
    assert answer("boxes", []).words() == "0 boxes"
    masks = answer("masks", np.ones((40, 60), bool))
    assert isinstance(masks, Masks)
    assert masks.labels.dtype == np.int32
    points = answer("keypoints", np.full((2, 5, 3), [9, 9, 0.5]))
    assert isinstance(points, Keypoints)
    assert points.points.shape == (2, 5, 2)
    figure = answer("keypoints", {"points": np.full((1, 5, 2), 5), "boxes": [[0, 0, 9, 9]]})
    assert isinstance(figure, Keypoints)
    assert figure.corners.tolist() == [[0, 0, 9, 9]]
    text = answer("text", "NO PARKING\n\n42")
    assert isinstance(text, Text)
    assert text.lines == ("NO PARKING", "42")
    sure = answer("text", {"lines": ["NO", "42"], "scores": [0.9, 0.2]})
    assert isinstance(sure, Text)
    assert sure.lines == ("NO",)  # 0.2 is below `least`
    assert isinstance(answer("embedding", [1, 2, 3]), Embedding)
    assert answer("classes", classes) is classes


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        ("classes", [3.0, -1.0], "softmax"),
        ("classes", [[0.5, 0.5]], "shape"),
        ("classes", [1.0], "one number"),
        ("classes", None, "None"),
        ("classes", [np.nan, 1], "not finite"),
        ("classes", "cat", "makes no array"),
        ("classes", Embedding(np.ones(3, np.float32)), "Embedding"),
        ("boxes", [[1, 2, 3]], "shape"),
        ("boxes", [[5, 2, 3, 4]], "not in order"),
        ("boxes", {"corners": []}, "no 'boxes'"),
        ("boxes", {"boxes": [], "sores": []}, "'sores'"),
        ("boxes", {"boxes": [[1, 2, 3, 4]], "scores": [0.5, 0.5]}, "2 scores for 1"),
        ("boxes", {"boxes": [[1, 2, 3, 4]], "scores": [7]}, "scores leave 0..1"),
        ("boxes", {"boxes": [[1, 2, 3, 4]], "labels": [None]}, "a label is a NoneType"),
        ("masks", np.zeros((60, 40)), "the image 60x40"),
        ("masks", np.full((40, 60), 0.5), "no classes"),
        ("keypoints", np.zeros((5, 2)), "shape"),
        ("text", 7, "no list of texts"),
        ("text", {"lines": ["a"], "boxes": []}, "0 boxes for 1 lines"),
        ("embedding", [], "empty"),
        # as functions often give them
        ("classes", [1e308, 1e308], "softmax"),
        ("boxes", ([[1, 2, 3, 4]], [0.9], [1]), "makes no array"),
        ("boxes", [[0.1, 0.2, 0.3, 0.4]], "are they shares of the image"),
        ("boxes", {"boxes": [[1, 2, 3, 4]], "labels": [1.5]}, "neither text nor a whole number"),
        ("boxes", {"boxes": [[1, 2, 3, 4]], "labels": [np.inf]}, "neither text nor"),
        ("masks", np.full((40, 60), 1e12), "no classes"),
        ("keypoints", np.full((1, 5, 2), 0.5), "are they shares of the image"),
        ("text", {"lines": ["a"], "scores": []}, "0 scores for 1"),
    ],
)
def test_wrong_answers_say_what_is_wrong(kind: Any, value: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        answer(kind, value)
    assert says in caught.value.message
    assert kind in caught.value.hint


def test_what_is_no_system_is_refused() -> None:
    for fn, kind, more in (
        (brightness, "class", {}),
        (7, "classes", {}),
        (brightness, "classes", {"name": "a b"}),
        (brightness, "classes", {"classes": "cat"}),
        (brightness, "classes", {"importance": 7}),
    ):
        with pytest.raises(SettingsError):
            System(fn, kind, **more)  # type: ignore[arg-type]


def test_batches_and_importance() -> None:
    def many(images: Sequence[npt.NDArray[np.uint8]]) -> list[list[float]]:
        return [brightness(image) for image in images]

    system = System(many, "classes", batch=True, importance=lambda image: image[..., 0] / 255)
    assert len(system.answers([IMAGE, IMAGE + 9])) == 2
    assert system.answers([]) == []
    assert system.importance(IMAGE).shape == (40, 60)
    assert system.importance(IMAGE).dtype == np.float32
    with pytest.raises(InputError, match="1 answers for 2 images"):
        System(lambda _: [0], "classes", batch=True).answers([IMAGE, IMAGE])
    with pytest.raises(InputError, match="leaves 0"):
        System(brightness, "classes", importance=lambda image: image[..., 0] + 2).importance(IMAGE)


def test_it_is_known_by_its_name_while_it_lives() -> None:
    system = System(brightness, "classes", name="bright")
    assert open_system("bright") is system
    assert "Python callable" in reading_of(system)
    assert vizcomp.System is System
    again = pickle.loads(pickle.dumps(system))
    assert (again.name, again.kind, again.fingerprint) == ("bright", "classes", system.fingerprint)
    del system, again
    assert living_system("bright") is None


def test_fingerprints_follow_code_and_options() -> None:
    prints = {
        System(brightness, "classes").fingerprint,
        System(brightness, "classes", classes=["a", "b"]).fingerprint,
        System(lambda image: [0.5, 0.5], "classes").fingerprint,
        System(lambda image: [0.4, 0.6], "classes").fingerprint,
        System(brightness, "classes", fingerprint="v1").fingerprint,
    }
    assert len(prints) == 5
    assert (
        System(brightness, "classes").fingerprint
        == System(brightness, "classes", name="other").fingerprint
    )


def told(name: str) -> str:
    found = living_system(name)
    return "" if found is None else found.answers([IMAGE])[0].words()


def crashed(_: str) -> str:
    return "crashed"


def test_it_goes_along_to_other_processes() -> None:
    system = System(brightness, "classes", name="bright", classes=["light", "dark"])
    tasks = [system.name] * 13  # so many that two workers start
    assert set(map_tasks(told, tasks, on_crash=crashed, jobs=2)) == {"dark 100%"}
    local = System(lambda image: brightness(image), "classes", name="local")
    with pytest.raises(SettingsError, match="cannot be sent") as caught:
        list(map_tasks(told, [local.name] * 13, on_crash=crashed, jobs=2))
    assert "top of a module" in caught.value.hint
    for jobs in (0, 1):
        assert set(
            map_tasks(told, [local.name] * 13, on_crash=crashed, jobs=jobs, isolate=True)
        ) == {"class 1 100%"}


@dataclasses.dataclass(frozen=True)
class Named:
    masks: str
    systems: tuple[str, ...] = ()


def masks_of(task: Named) -> str:
    return task.masks


def test_a_system_that_no_task_names_stays_here() -> None:
    there = System(lambda image: image[..., 0] > 9, "masks", name="masks")
    tasks = [Named("masks/a.png")] * 13
    assert set(map_tasks(masks_of, tasks, on_crash=masks_of, jobs=2)) == {"masks/a.png"}
    for named in (
        Named("", (there.name,)),
        Named("depth+system:masks"),
        Named("djpeg:verify=masks,quality=40"),
    ):
        with pytest.raises(SettingsError, match="the vision system masks cannot be sent"):
            list(map_tasks(masks_of, [named] * 13, on_crash=masks_of, jobs=2))


SCRIPT = """
import numpy as np
import vizcomp
from vizcomp.errors import SettingsError

def by_colour(image):
    return np.eye(3, dtype=np.float32)[int(image.mean((0, 1)).argmax())]

if __name__ == "__main__":
    system = vizcomp.System(by_colour, kind="classes", name="mine")
    ask = {"risk": 0.2, "confidence": 0.9, "format": "jpeg", "rivals": False}
    try:
        vizcomp.fit(["photos"], system, jobs=2, **ask)
    except SettingsError as exc:
        print(exc.message)
    print(vizcomp.fit(["photos"], system, **ask).policy.certificate.photos)
"""


def test_a_function_of_a_script_is_asked_in_its_process(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = np.full((48, 64, 3), 40, np.uint8)
        pixels[..., number % 3] = 200
        pixels[8:40, 8:56] += rng.integers(0, 40, (32, 48, 1), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "own.py").write_text(SCRIPT)
    environment = {**os.environ, "VIZCOMP_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    refused, photos = done.stdout.splitlines()
    assert "mine cannot be sent to worker processes" in refused
    assert int(photos) > 9
    assert "Traceback" not in done.stderr


def test_a_callable_guides_and_verifies(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 90, (64, 96, 3), np.uint8)
    pixels[16:32, 40:72] = 230
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    system = System(bright_place, "boxes", name="bright_place")
    run = run_djpeg(
        find_inputs([str(tmp_path)]),
        tmp_path / "out",
        DjpegSettings(guide=f"system:{system.name}"),
        BatchSettings(verify=(system.name,)),
        RunOptions(jobs=1),
    )
    assert run.totals.verified == 2
    assert all(record.verify_score == {"bright_place": 1.0} for record in run.records)
    assert run.totals.rival is not None
    assert run.totals.rival["photos"] == 2
    assert run.totals.rival["bytes"] == sum(record.rival_bytes or 0 for record in run.records) > 0
    (about,) = systems_of(
        DjpegSettings(guide=f"system:{system.name}"), BatchSettings(verify=(system.name,))
    )
    assert about["roles"] == ["verify", "guide"]
    assert (about["name"], about["kind"], about["fingerprint"]) == (
        "bright_place",
        "boxes",
        system.fingerprint,
    )


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
)
def test_torchscript(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    mean = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Softmax(1)
    )
    path = tmp_path / "mean.torchscript"
    config = {
        "task": "classify",
        "names": {"0": "red", "1": "green", "2": "blue"},
        "imgsz": [32, 32],
    }
    torch.jit.script(mean).save(str(path), _extra_files={"config.txt": json.dumps(config)})
    system = open_system(f"{path}:resize=stretch")
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    assert system.answers([red])[0].words().startswith("red")
    assert "input 32x32" in reading_of(system)
    torch.jit.script(mean).save(str(tmp_path / "m.pt"))
    assert open_system(f"{tmp_path / 'm.pt'}:size=16").kind == "classes"
    (tmp_path / "bad.pt").write_bytes(b"none")
    with pytest.raises(vizcomp.VizcompError, match="TorchScript"):
        open_system(str(tmp_path / "bad.pt"))
