"""Labels of photos whose pixels were moved: COCO, YOLO, VOC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizcomp.datasets import coco_labels, voc_labels, yolo_labels
from vizcomp.datasets.coco_labels import CocoLabels
from vizcomp.datasets.moved_labels import Move, Result
from vizcomp.errors import InputError
from vizcomp.photos.frame import upright


def result(**changes: Any) -> Result:
    base: dict[str, Any] = {
        "size": (200, 100),
        "orientation": 1,
        "output_size": (50, 25),
        "turned": False,
    }
    return Result(**{"name": "a.png", "output": "a.jpg", **base, **changes})


# --- where places go
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_turn_as_pixels_do(orientation: int) -> None:
    pixels = np.zeros((100, 200), np.uint8)
    pixels[10:30, 120:160] = 1  # left 120, top 10, right 160, bottom 30
    straight = upright(pixels, orientation)
    height, width = straight.shape
    turned = result(orientation=orientation, turned=True, output_size=(width // 2, height // 2))
    move = (
        turned.move((200, 100))
        if orientation >= 5
        else Move((200, 100), (width // 2, height // 2), orientation)
    )
    assert move.orientation == orientation
    left, top, right, bottom = move.box(120, 10, 160, 30)
    rows, columns = np.nonzero(straight)
    edges = (columns.min() / 2, rows.min() / 2, (columns.max() + 1) / 2, (rows.max() + 1) / 2)
    assert (left, top, right, bottom) == edges
    np.testing.assert_array_equal(move.mask(pixels), straight[::2, ::2])


def test_the_frame_is_told_by_the_size() -> None:
    # shown as 100 x 200, stored on
    kept = result(orientation=6, size=(200, 100), output_size=(50, 25))
    assert kept.move((100, 200)) == Move((100, 200), (25, 50))
    assert kept.move(None) == Move((100, 200), (25, 50))
    assert kept.move((200, 100)) == Move((200, 100), (50, 25))
    turned = result(orientation=6, size=(200, 100), output_size=(25, 50), turned=True)
    assert turned.move((100, 200)) == Move((100, 200), (25, 50))
    assert turned.move((200, 100)) == Move((200, 100), (25, 50), 6)
    assert not result(output_size=(200, 100)).move((200, 100)).moves
    with pytest.raises(ValueError, match="640 x 480"):
        kept.move((640, 480))


# --- COCO
# --------------------------------------------------------------------------------------------------


def coco(path: Path, *, annotations: Any = (), images: Any = None, **more: Any) -> Path:
    images = images or [
        {"id": 7, "file_name": "sub/a.png", "width": 200, "height": 100, "license": 3}
    ]
    whole = {
        "info": {"year": 2017},
        "images": images,
        "annotations": list(annotations),
        "categories": [{"id": 1}],
        **more,
    }
    path.write_text(json.dumps(whole), "utf-8")
    return path


def moved(path: Path, **changes: Any) -> dict[str, Any]:
    labels = CocoLabels(path)
    one = result(**changes)
    whole = json.loads(labels.moved({0: (one, labels.move(0, one))}))
    assert isinstance(whole, dict)
    return whole


MASK = {"size": [100, 200], "counts": [1000, 20, 80, 20, 18880]}


def test_coco_moves_places_and_nothing_else(tmp_path: Path) -> None:
    annotation = {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [20, 10, 40.5, 20],
        "area": 600,
        "iscrowd": 0,
        "segmentation": [[20, 10, 60, 10, 60, 30]],
        "keypoints": [20, 10, 2, 0, 0, 0],
        "num_keypoints": 1,
        "note": "\u00e9",
    }
    whole = moved(coco(tmp_path / "c.json", annotations=[annotation], extra=[1, {"a": None}]))
    assert whole["images"] == [
        {"id": 7, "file_name": "sub/a.jpg", "width": 50, "height": 25, "license": 3}
    ]
    assert whole["annotations"] == [
        {
            **annotation,
            "bbox": [5, 2.5, 10.125, 5],
            "area": 37.5,
            "segmentation": [[5, 2.5, 15, 2.5, 15, 7.5]],
            "keypoints": [5, 2.5, 2, 0, 0, 0],
        }
    ]
    assert (whole["info"], whole["categories"], whole["extra"]) == (
        {"year": 2017},
        [{"id": 1}],
        [1, {"a": None}],
    )
    same = moved(tmp_path / "c.json", output_size=(200, 100))
    assert same["annotations"] == [annotation]


def test_coco_masks_in_run_lengths(tmp_path: Path) -> None:
    text = coco_labels._to_text(MASK["counts"])
    both = [
        {"id": 1, "image_id": 7, "segmentation": MASK, "iscrowd": 1},
        {"id": 2, "image_id": 7, "segmentation": {"size": [100, 200], "counts": text}},
    ]
    first, second = moved(coco(tmp_path / "c.json", annotations=both))["annotations"]
    pixels = np.repeat(np.arange(5) % 2, MASK["counts"]).reshape(200, 100).T
    wanted = pixels[2::4, 2::4]
    runs = first["segmentation"]
    assert runs["size"] == [25, 50]
    np.testing.assert_array_equal(
        np.repeat(np.arange(len(runs["counts"])) % 2, runs["counts"]).reshape(50, 25).T, wanted
    )
    assert isinstance(second["segmentation"]["counts"], str)
    assert coco_labels._from_text(second["segmentation"]["counts"]) == runs["counts"]
    full = {"size": [100, 200], "counts": [0, 20000]}
    only = moved(
        coco(tmp_path / "f.json", annotations=[{"id": 1, "image_id": 7, "segmentation": full}])
    )["annotations"][0]
    assert only["segmentation"] == {"size": [25, 50], "counts": [0, 1250]}


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_run_lengths_as_text_come_back(counts: list[int]) -> None:
    assert coco_labels._from_text(coco_labels._to_text(counts)) == counts


def test_run_lengths_as_text_are_those_of_coco() -> None:
    assert coco_labels._to_text([6, 1, 40, 4, 5, 4, 5, 4, 21]) == "61X13mN000`0"  # by pycocotools


def test_coco_images_are_found_by_their_names(tmp_path: Path) -> None:
    names = ("a/x.jpg", "b/x.jpg", "only.jpg", "c\\win.jpg")
    labels = CocoLabels(
        coco(
            tmp_path / "c.json",
            images=[{"id": i, "file_name": name} for i, name in enumerate(names)],
        )
    )
    for path, found in (
        *(("/photos/a/x.jpg", [0]), ("photos/b/x.jpg", [1]), ("x.jpg", []), ("z/x.jpg", [])),
        *(("deep/er/only.jpg", [2]), ("c/win.jpg", [3]), ("none.jpg", [])),
    ):
        assert labels.images_of(Path(path)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "no object"),
        ("{}", "no list of images"),
        ('{"images": [3], "annotations": []}', "no list of images"),
        ('{"images": [{"id": 1}], "annotations": []}', "no file_name"),
        ('{"images": [{"id": 1, "file_name": "a", "width": -3}], "annotations": []}', "width -3"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}', "a bbox"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, NaN]}]}', "NaN"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 1e99]}]}', "a bbox"),
        (
            '{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, '
            + "9" * 500
            + "]}]}",
            "too large",
        ),
        ('{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2]}]}', "keypoints"),
        (
            '{"images": [], "annotations": [{"image_id": 1, "segmentation": [[1, 2, 3]]}]}',
            "neither polygons",
        ),
        (
            (
                '{"images": [], "annotations": [{"image_id": 1, "segmentation": {"size": [9, 9],'
                ' "counts": [1]}}]}'
            ),
            "does not fill",
        ),
        (
            (
                '{"images": [], "annotations": [{"image_id": 1, "segmentation": {"size": [9, 9],'
                ' "counts": "\\u2603"}}]}'
            ),
            "no text",
        ),
        ('{"images": [], "annotations": [{"image_id": 1, "segments_info": []}]}', "panoptic"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "no COCO labels"),
    ],
)
def test_broken_coco_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=words):
        CocoLabels(path)


def test_a_mask_of_another_size_than_its_photo_takes_no_memory(tmp_path: Path) -> None:
    side = (1 << 20) - 1
    huge = {"size": [side, side], "counts": [0, side * side]}
    labels = CocoLabels(
        coco(tmp_path / "c.json", annotations=[{"id": 1, "image_id": 7, "segmentation": huge}])
    )
    with pytest.raises(ValueError, match="a mask has another size"):
        labels.move(0, result())


# --- VOC
# --------------------------------------------------------------------------------------------------

VOC = """<?xml version="1.0"?>
<!-- by hand -->
<annotation verified="yes">
\t<folder>VOC</folder>
\t<filename>a.png</filename>
\t<path>C:\\photos\\a.png</path>
\t<size><width>200</width>\n<height>100</height><depth>3</depth></size>
\t<object><name>dog &amp; cat</name><difficult>0</difficult>
\t\t<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>61.5</xmax><ymax>30</ymax></bndbox>
\t\t<part><name>head</name>
\t\t<bndbox><xmax>24</xmax><xmin> 22 </xmin><ymin>11</ymin><ymax>12</ymax></bndbox></part>
\t\t<polygon><x1>20</x1><y1>10</y1><x2>60</x2><y2>30</y2></polygon>
\t</object>
</annotation>
"""


def test_voc_changes_numbers_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(VOC, "utf-8")
    wanted = VOC
    for before, after in (
        ("<filename>a.png", "<filename>a.jpg"),
        ("photos\\a.png", "photos\\a.jpg"),
        ("<width>200", "<width>50"),
        ("<height>100", "<height>25"),
        (
            "<xmin>20</xmin><ymin>10</ymin><xmax>61.5</xmax><ymax>30",
            "<xmin>5</xmin><ymin>2</ymin><xmax>15.375</xmax><ymax>8",
        ),
        (
            "<xmax>24</xmax><xmin> 22 </xmin><ymin>11</ymin><ymax>12",
            "<xmax>7</xmax><xmin>6</xmin><ymin>3</ymin><ymax>4",
        ),
        ("<x1>20</x1><y1>10</y1><x2>60</x2><y2>30", "<x1>5</x1><y1>2</y1><x2>15</x2><y2>8"),
    ):
        assert before in wanted
        wanted = wanted.replace(before, after)
    assert voc_labels.moved(path, result()).decode("utf-8") == wanted
    assert voc_labels.moved(path, result(output="a.png", output_size=(200, 100))) == VOC.encode()


def test_voc_boxes_keep_a_pixel(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(VOC.replace("61.5", "22"), "utf-8")
    made = voc_labels.moved(path, result(output_size=(2, 1))).decode("utf-8")
    assert "<xmin>1</xmin><ymin>0</ymin><xmax>2</xmax><ymax>1</ymax>" in made


def test_voc_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    text = VOC.replace('version="1.0"', 'version="1.0" encoding="iso-8859-1"').replace(
        "VOC", "\u00e9t\u00e9"
    )
    path.write_bytes(text.encode("latin-1"))
    made = voc_labels.moved(path, result(output="\u00e9.jpg"))
    assert b"<folder>\xe9t\xe9</folder>" in made
    assert b"<filename>&#233;.jpg</filename>" in made
    assert b"<width>50</width>" in made


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m'
    ' "&l;&l;&l;&l;&l;&l;">]><annotation><filename>&m;</filename></annotation>'
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "entities are not read"),
        ('<!DOCTYPE a SYSTEM "http://127.0.0.1/x"><annotation/>', "entities are not read"),
        ("<html/>", "no annotation"),
        ("<annotation>", "broken XML"),
        ("no xml", "broken XML"),
        (VOC.replace("<width>200", "<width>300"), "300 x 100"),
        (VOC.replace("<xmin>20", "<xmin>1e"), "no number"),
        (VOC.replace("<xmin>20</xmin>", ""), "has not all"),
        (VOC.replace("<y2>30</y2>", ""), "no y2"),
        (VOC.replace("polygon", "robndbox"), "turned"),
        ("\0" + VOC, "UTF-16"),
        (VOC + " " * (8 << 20), "bytes of XML"),
    ],
)
def test_broken_voc_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=words):
        voc_labels.moved(path, result())


def test_deep_xml_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<annotation>" + "<a>" * 50 + "</a>" * 50 + "</annotation>", "utf-8")
    assert voc_labels.moved(path, result()) == path.read_bytes()
    path.write_text("<annotation>" + "<a>" * 5000 + "</a>" * 5000 + "</annotation>", "utf-8")
    with pytest.raises(ValueError, match="nested too deeply"):
        voc_labels.moved(path, result())


# --- YOLO
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "0 0.5 0.5 0.2 0.1\r\n\n3 1.005 0 0 1 0.5 2\n", "1 .1 .1 .2 .2 .3 .3\n"]
)
def test_yolo_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    assert yolo_labels.checked(path) == text.encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0.5 0.5 0.2\n", "line 1"),
        ("0 0.5 0.5 0.2 0.1\n0 120 80 20 10\n", "line 2 has a place"),
        ("0 0.5 nan 0.2 0.1\n", "no share"),
        ("a dog sits\n", "line 1"),
        ("x" * (17 << 20), "bytes of labels"),
    ],
)
def test_broken_yolo_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=words):
        yolo_labels.checked(path)
