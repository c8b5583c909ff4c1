"""Labels: read from every kind of file, held against answers, and certified."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture

import vizcomp
from vizcomp.datasets.true_boxes import true_boxes
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.fitting import candidates
from vizcomp.fitting.policy import Policy
from vizcomp.fitting.truth import Truth, read_truths
from vizcomp.photos.photo import Photo, load_bytes
from vizcomp.vision.answers import Boxes, Classes, Masks, Text
from vizcomp.vision.boxes import corners_to_quads

NAMES = ("cat", "dog")
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48}],
    "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [8, 12, 16, 24]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 64, 48], "iscrowd": 1},
    ],
}
VOC = """<annotation><size><width>64</width><height>48</height></size>
<object><name>dog</name><bndbox><xmin>8</xmin><ymin>12</ymin><xmax>24</xmax><ymax>36</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>
</part></object></annotation>"""


def photo(orientation: int = 1) -> Photo:
    made = load_bytes(jpeg_bytes(picture(1, 48, 64), quality=90), "a.jpg")
    return Photo(**{**vars(made), "orientation": orientation})


def labels(folder: Path, kind: str) -> Path:
    """One dog, at 8..24 and 12..36 of 64 x 48 pixels, in a kind of file."""
    folder.mkdir()
    if kind == "coco":
        (folder / "labels.json").write_text(json.dumps(COCO))
        return folder / "labels.json"
    if kind == "voc":
        (folder / "a.xml").write_text(VOC)
    else:
        rows = {"yolo": "1 0.25 0.5 0.25 0.5", "outline": "1 0.125 0.25 0.375 0.25 0.375 0.75"}
        (folder / "a.txt").write_text(rows[kind] + "\n")
        (folder / "classes.txt").write_text("cat\ndog\n")
    return folder


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo", "outline"])
def test_every_kind_of_boxes_says_the_same(tmp_path: Path, kind: str) -> None:
    read = true_boxes(labels(tmp_path / kind, kind))
    boxes = read(tmp_path / "photos" / "a.jpg", Path("a.jpg"))
    assert boxes is not None
    assert boxes.names == ("dog",)
    assert boxes.on((64, 48), 1) == [(8, 12, 24, 36)]
    assert read(tmp_path / "photos" / "b.jpg", Path("b.jpg")) is None
    truth = Truth(boxes=boxes)
    quads = corners_to_quads(np.array([[8.0, 12, 24, 36], [40, 2, 60, 20]]))
    assert truth.right(Boxes(quads[:1], ("dog",), (64, 48)), photo()) == 1
    assert truth.right(Boxes(quads[:1], ("Dog",), (64, 48)), photo()) == 1
    assert truth.right(Boxes(quads, ("dog", "cat"), (64, 48)), photo()) == pytest.approx(2 / 3)
    assert truth.right(Boxes(quads[:1], ("cat",), (64, 48)), photo()) == 0
    assert truth.right(Boxes(quads[:0], (), (64, 48)), photo()) == 0
    assert truth.right(Boxes(quads[:1], ("class 1",), (64, 48)), photo()) == (kind != "voc")


def test_boxes_of_a_turned_photo_are_turned_where_the_labels_are_of_its_stored_pixels(
    tmp_path: Path,
) -> None:
    boxes = true_boxes(labels(tmp_path / "coco", "coco"))(tmp_path / "a.jpg", Path("a.jpg"))
    assert boxes is not None
    assert boxes.on((64, 48), 6) == [(12, 8, 36, 24)]  # a quarter to the right: 48 wide, 64 high
    assert boxes.on((48, 64), 6) == [(8, 12, 24, 36)]  # made on the photo as displayed
    with pytest.raises(ValueError, match="of a photo of 64 x 48 pixels"):
        boxes.on((640, 480), 1)
    with pytest.raises(InputError, match="its labels do not fit"):
        Truth(boxes=boxes).right(Boxes(np.empty((0, 4, 2))), resized())


def resized() -> Photo:
    return load_bytes(jpeg_bytes(picture(1, 24, 32), quality=90), "a.jpg")


def test_classes_by_name_by_number_and_by_place() -> None:
    answer = Classes(np.array([0.1, 0.9], np.float32), NAMES)
    unnamed = Classes(answer.probabilities)
    assert Truth("dog").right(answer, photo()) == Truth("DOG").right(answer, photo()) == 1
    assert Truth("cat").right(answer, photo()) == 0
    assert Truth("1").right(unnamed, photo()) == 1
    assert Truth("dog", rank=1, names=2).right(unnamed, photo()) == 1
    assert Truth("cat", rank=0, names=2).right(unnamed, photo()) == 0
    with pytest.raises(InputError, match="'horse' is no class of the system, which has 2"):
        Truth("horse", rank=0, names=3).right(unnamed, photo())


def test_words_that_are_read() -> None:
    def reading(*lines: str) -> Text:
        return Text(lines, np.zeros((len(lines), 4, 2)))

    assert Truth("Main Street").right(reading("MAIN", "street 12"), photo()) == 1
    assert Truth("Main Street").right(reading("Main"), photo()) == 0.5
    assert Truth("").right(reading(), photo()) == 1


def test_labels_of_other_answers_are_refused() -> None:
    with pytest.raises(InputError, match="it needs boxes"):
        Truth("dog").right(Boxes(np.empty((0, 4, 2))), photo())
    with pytest.raises(InputError, match="for classes, boxes and text alone"):
        Truth("dog").right(Masks(np.zeros((4, 4), np.int32)), photo())


def files_of(folder: Path) -> list[InputFile]:
    return list(find_inputs([folder]))


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Two photos in each of two folders."""
    for place, name in enumerate(NAMES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for seed in range(2):
            data = jpeg_bytes(picture(2 * place + seed, 24, 32))
            (tmp_path / "photos" / name / f"{seed}.jpg").write_bytes(data)
    return tmp_path / "photos"


def test_folders_and_tables(tmp_path: Path, sample: Path) -> None:
    files = files_of(sample)
    folders = read_truths("folders", files)
    assert {(truth.words, truth.rank) for truth in folders.by_file.values()} == {
        ("cat", 0),
        ("dog", 1),
    }
    table = tmp_path / "labels.csv"
    table.write_text("File,Label\ncat/0.jpg,one\ncat/0.jpg,two\ndog\\1.jpg,three\n")
    read = read_truths(str(table), files)
    words = {file.relative.as_posix(): truth.words for file, truth in read.by_file.items()}
    assert words == {"cat/0.jpg": "one two", "dog/1.jpg": "three"}
    assert read.notices == ("2 of 4 photos have no label and are left out",)
    assert read.digest != folders.digest


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("labels.csv", "a,b\n1,2\n", "has no columns file and label"),
        ("labels.csv", "file,label\nx.jpg,dog\n", "has no labels of these photos, such as"),
        ("missing.csv", None, "cannot be read"),
        ("labels.json", "{}", "holds no COCO labels"),
        ("none", None, "does not exist"),
        ("labels.yaml", "a: b", "is no .json file"),
    ],
)
def test_labels_that_are_none(
    tmp_path: Path, sample: Path, name: str, text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((InputError, SettingsError), match=why):
        read_truths(str(tmp_path / name), files_of(sample))


def strongest(image: np.ndarray) -> np.ndarray:
    """A classifier that names the strongest colour."""
    return np.eye(3, dtype=np.float32)[int(image.mean((0, 1)).argmax())]


def test_accuracy_on_labels_is_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(candidates, "QUALITIES", (14, 90))
    monkeypatch.setattr(candidates, "GUIDES", (("uniform", 0.0),))
    for seed in range(30):
        folder = tmp_path / "photos" / str(seed % 3)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = picture(seed, 48, 64) // 3
        pixels[..., (seed + seed // 25) % 3] += 120  # five of them are labelled wrongly
        (folder / f"{seed}.jpg").write_bytes(jpeg_bytes(pixels, quality=92))
    system = vizcomp.System(strongest, kind="classes", name="strongest")
    ask = {"risk": 0.2, "confidence": 0.9, "format": "jpeg", "rivals": False, "jobs": 1}
    fitted = vizcomp.fit([tmp_path / "photos"], system, labels="folders", **ask)
    assert fitted.policy.certificate.sentence.startswith(
        "Accuracy on the labels falls by at most 20%, with 90% confidence (0 of 25 worse"
    )
    one = fitted.policy.systems[0]
    assert 0.7 < one.right_on_sources < 1
    assert one.right_on_results == one.right_on_sources
    fitted.policy.write(tmp_path / "p.toml")
    assert Policy.read(tmp_path / "p.toml") == fitted.policy
    assert command("check", tmp_path / "p.toml", tmp_path / "photos", "-j", 1) == 2
    assert "is about labels: give --labels of these photos" in capsys.readouterr().err
    masks = vizcomp.System(lambda image: image[..., 0] > 9, kind="masks", name="masks")
    with pytest.raises(SettingsError, match="for classes, boxes and text, not for masks"):
        vizcomp.fit([tmp_path / "photos"], masks, labels="folders", **ask)
