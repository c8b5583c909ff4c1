"""`djpeg --labels`: labels of COCO, YOLO and VOC beside the results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jpeg_kit import exif, photo
from kit import command, jpeg_bytes, tree

Run = Callable[..., tuple[dict[str, Any], str]]
VOC = (
    "<annotation><filename>a.jpg</filename>"
    "<size><width>{0}</width><height>{1}</height></size>{2}</annotation>"
)
BOX = (
    "<object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `vizcomp djpeg` in this process on photos/a.jpg, photos/sub/b.png, photos/c.jpg, with
    labels of most."""
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    Path("photos/a.jpg").write_bytes(jpeg_bytes(photo(200, 100)))
    Path("photos/c.jpg").write_bytes(jpeg_bytes(photo(120, 90, seed=1)))
    from PIL import Image

    Image.fromarray(photo(160, 80, seed=2)).save("photos/sub/b.png")

    def called(*arguments: object, code: int = 0) -> tuple[dict[str, Any], str]:
        capfd.readouterr()
        ended = command(
            "djpeg", "photos", "-o", "out", "--guide", "uniform", "--json", "-j", 1, *arguments
        )
        out, err = capfd.readouterr()
        assert ended == code, err
        assert "Traceback" not in err
        return (json.loads(out) if out else {}), err

    return called


def coco(path: str = "labels.json") -> dict[str, Any]:
    whole: dict[str, Any] = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 200, "height": 100},
            {"id": 2, "file_name": "sub/b.png", "width": 160, "height": 80},
            {"id": 3, "file_name": "elsewhere.jpg", "width": 10, "height": 10},
        ],
        "annotations": [
            {"id": i, "image_id": i, "bbox": [20, 10, 40, 20], "area": 800, "category_id": 1}
            for i in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }
    Path(path).write_text(json.dumps(whole), "utf-8")
    return whole


def test_coco_is_one_file_beside_the_results(run: Run) -> None:
    whole = coco()
    report, said = run("--max-side", 100, "--labels", "labels.json")
    assert report["totals"]["labels"] == {
        "kind": "coco",
        "written": 2,
        "missing": 1,
        "refused": 0,
        "passed_over": 0,
    }
    assert "labels (coco): of 2 photos written; 1 photos have none" in said
    made = json.loads(Path("out/labels/labels.json").read_text("utf-8"))
    assert made["images"] == [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50},
        {"id": 2, "file_name": "sub/b.jpg", "width": 100, "height": 50},
    ]
    assert [a["bbox"] for a in made["annotations"]] == [[10, 5, 20, 10], [12.5, 6.25, 25, 12.5]]
    assert made["categories"] == whole["categories"]
    # a second run without --resume knows no sizes, and leaves what is there
    report, said = run("--max-side", 100, "--labels", "labels.json")
    assert report["totals"]["labels"]["passed_over"] == 2
    assert json.loads(Path("out/labels/labels.json").read_text("utf-8")) == made
    whole["annotations"].pop(0)
    Path("labels.json").write_text(json.dumps(whole), "utf-8")
    report, _ = run("--max-side", 100, "--labels", "labels.json", "--resume")
    assert report["totals"]["labels"]["written"] == 2
    made = json.loads(Path("out/labels/labels.json").read_text("utf-8"))
    assert [a["id"] for a in made["annotations"]] == [2]
    Path("out/labels/labels.json").write_text("{}", "utf-8")  # somebody's own now
    report, said = run("--max-side", 100, "--labels", "labels.json", "--resume", code=1)
    assert "exists; --overwrite replaces it" in said
    assert Path("out/labels/labels.json").read_text("utf-8") == "{}"


def test_yolo_is_copied_and_checked(run: Run) -> None:
    Path("yolo/sub").mkdir(parents=True)
    Path("yolo/a.txt").write_bytes(b"0 0.5 0.5 0.2 0.1\r\n")
    Path("yolo/sub/b.txt").write_bytes(b"")
    Path("yolo/c.txt").write_bytes(b"0 60 45 20 10\n")
    Path("yolo/classes.txt").write_bytes(b"dog\n")
    report, said = run("--scale", "0.5", "--labels", "yolo", code=1)
    assert report["totals"]["labels"] == {
        "kind": "yolo",
        "written": 2,
        "missing": 0,
        "refused": 1,
        "passed_over": 0,
    }
    assert "c.jpg: its labels are not written: line 1" in said
    assert tree(Path("out/labels")) == {"a.txt", "sub/b.txt", "classes.txt"}
    assert Path("out/labels/a.txt").read_bytes() == b"0 0.5 0.5 0.2 0.1\r\n"


def test_voc_goes_with_photos_that_are_turned(run: Run) -> None:
    Path("photos/a.jpg").write_bytes(jpeg_bytes(photo(200, 100), exif=exif(6)))
    Path("voc").mkdir()
    # on the stored pixels
    Path("voc/a.xml").write_text(VOC.format(200, 100, BOX.format(120, 10, 160, 30)), "utf-8")
    Path("voc/b.xml").write_text(VOC.format(160, 80, BOX.format(0, 0, 160, 80)), "utf-8")
    report, _ = run("--max-side", 100, "--labels", "voc", "--metadata", "none")
    assert report["totals"]["labels"]["written"] == 2
    turned = VOC.format(50, 100, BOX.format(35, 60, 45, 80))
    assert Path("out/labels/a.xml").read_text("utf-8") == turned
    assert Path("out/labels/sub/b.xml").read_text("utf-8") == VOC.format(
        100, 50, BOX.format(0, 0, 100, 50)
    )
    run("--max-side", 100, "--labels", "voc", "--overwrite")
    kept = VOC.format(100, 50, BOX.format(60, 5, 80, 15))
    assert Path("out/labels/a.xml").read_text("utf-8") == kept


def test_a_dry_run_writes_no_labels(run: Run) -> None:
    coco()
    report, _ = run("--max-side", 100, "--labels", "labels.json", "--dry-run")
    assert report["totals"]["labels"]["written"] == 2
    assert not Path("out").exists()


def test_labels_of_nothing_are_refused_before_the_first_photo(run: Run) -> None:
    Path("empty").mkdir()
    for name in (
        "both/x.txt",
        "both/x.xml",
        "other/z.txt",
        "jsons/x.json",
        "out/labels/a.txt",
        "not.csv",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}", "utf-8")
    for place, words in (
        *(
            ("missing", "does not exist"),
            ("not.csv", "no .json"),
            ("empty", "holds no labels"),
            ("both", ".txt and .xml"),
        ),
        *(
            ("other", "no labels of these photos"),
            ("jsons", "the .json file itself"),
            ("jsons/x.json", "no list of images"),
        ),
        ("out/labels", "where labels are written"),
    ):
        _, said = run("--labels", place, code=2)
        assert words in said
        assert said.count("\n") == 2
    assert not [*Path("out").rglob("*.jpg")]
