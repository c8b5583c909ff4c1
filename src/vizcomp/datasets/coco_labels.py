"""Labels in COCO's JSON (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014) for
photos of another size.

What has a place is moved: `width` and `height` of images, `bbox`, `segmentation` (polygons and run
lengths), `area`, `keypoints`. All else stays as it is. Run lengths go down the columns, beginning
with zeros; as text each number has groups of five bits, the lowest first, 32 added where more
follow and 48 to all, and from the fourth number on it is the difference from the number two before
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.datasets.moved_labels import Move, Result, rounded
from vizcomp.errors import InputError
from vizcomp.files.foreign import read_object_file
from vizcomp.files.place import printable

MOST_BYTES = 1 << 30  # COCO's own training part has 0.45 GB
LARGEST = 1e12  # of a coordinate or an area
HINT = "give a file with images and annotations, as COCO's instances_val2017.json"


class CocoLabels:
    """The labels of a file, checked.

    Raises:
        InputError: it cannot be read, or holds no COCO labels, or broken ones.
    """

    def __init__(self, path: Path) -> None:
        self._name = printable(path)
        try:
            self._all = read_object_file(path, most_bytes=MOST_BYTES)
            self._images = _objects(self._all, "images")
            self._annotations = _objects(self._all, "annotations")
            for image in self._images:
                _check_image(image)
            for annotation in self._annotations:
                _check_annotation(annotation)
        except (ValueError, OSError) as exc:
            raise InputError(f"{self._name} holds no COCO labels: {exc}", HINT) from exc
        self._mask_sizes: dict[int | str, set[tuple[int, int]]] = {}
        for annotation in self._annotations:
            if isinstance(shape := annotation.get("segmentation"), dict):
                self._mask_sizes.setdefault(annotation["image_id"], set()).add(
                    (shape["size"][1], shape["size"][0])
                )
        self._boxes: dict[int | str, list[tuple[str, int, float, float, float, float]]] | None = (
            None
        )
        self._by_name: dict[str, list[int]] = {}
        for index, image in enumerate(self._images):
            self._by_name.setdefault(_parts(image["file_name"])[-1], []).append(index)

    def images_of(self, path: Path | PurePosixPath | Any) -> list[int]:
        """Which images a photo's path stands for: those whose name ends as the path does, by the
        most parts.

        An image called `train/a.jpg` is `photos/train/a.jpg`; where none is called like that,
        `b/a.jpg` is the only image of that name, wherever it lies.
        """
        parts = tuple(part for part in str(path).replace("\\", "/").split("/") if part)
        candidates = self._by_name.get(parts[-1] if parts else "", [])
        ends = [
            i
            for i in candidates
            if parts[-len(name := _parts(self._images[i]["file_name"])) :] == name
        ]
        if ends:
            longest = max(len(_parts(self._images[i]["file_name"])) for i in ends)
            return [i for i in ends if len(_parts(self._images[i]["file_name"])) == longest]
        return candidates if len(candidates) == 1 else []

    def boxes_of(
        self, index: int
    ) -> tuple[list[tuple[str, int, float, float, float, float]], tuple[int, int] | None]:
        """The boxes of an image: class by name and by its place among all categories, left, top,
        right, bottom; and the size that the labels name. Crowds are left out: they are no single
        things."""
        image = self._images[index]
        size = (image["width"], image["height"]) if "width" in image and "height" in image else None
        if self._boxes is None:
            self._boxes = {}
            categories = sorted(
                (
                    one
                    for one in self._all.get("categories") or []
                    if isinstance(one, dict) and isinstance(one.get("id"), int)
                ),
                key=lambda one: one["id"],
            )
            ranks = {
                one["id"]: (place, str(one.get("name", ""))) for place, one in enumerate(categories)
            }
            for annotation in self._annotations:
                if len(box := annotation.get("bbox") or []) != 4 or annotation.get("iscrowd"):
                    continue
                place, name = ranks.get(annotation.get("category_id"), (-1, ""))
                left, top, width, height = box
                row = (name, place, left, top, left + width, top + height)
                self._boxes.setdefault(annotation["image_id"], []).append(row)
        return self._boxes.get(image["id"], []), size

    def move(self, index: int, result: Result) -> Move:
        """How the places of an image move.

        Raises:
            ValueError: the labels are of a photo of another size.
        """
        image = self._images[index]
        size = (image["width"], image["height"]) if "width" in image and "height" in image else None
        move = result.move(size)
        if any(each != move.size for each in self._mask_sizes.get(image["id"], ())):
            raise ValueError("a mask has another size than its photo")
        return move

    def moved(self, results: Mapping[int, tuple[Result, Move]]) -> bytes:
        """The labels of the images by index that have results, as JSON."""
        images, moves = [], {}
        for index, image in enumerate(self._images):
            if index not in results:
                continue
            result, move = results[index]
            fresh = dict(image)
            name = image["file_name"].replace("\\", "/")
            fresh["file_name"] = name[: len(name) - len(_parts(name)[-1])] + result.output
            if "width" in image and "height" in image:
                fresh["width"], fresh["height"] = move.wanted
            images.append(fresh)
            moves[image["id"]] = move
        annotations = [
            _moved(a, moves[a["image_id"]]) for a in self._annotations if a["image_id"] in moves
        ]
        text = json.dumps(
            {**self._all, "images": images, "annotations": annotations}, ensure_ascii=False
        )
        return text.encode("utf-8")


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.replace("\\", "/").split("/") if part)


def _objects(whole: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    some = whole.get(name)
    if not isinstance(some, list) or not all(isinstance(one, dict) for one in some):
        raise ValueError(f"it has no list of {name}")
    return some


# --- checks
# --------------------------------------------------------------------------------------------------


def _check_image(image: Mapping[str, Any]) -> None:
    name, number = image.get("file_name"), image.get("id")
    if not isinstance(name, str) or not _parts(name) or not isinstance(number, int | str):
        raise ValueError("an image has no file_name or no id")
    for side in ("width", "height"):
        value = image.get(side, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"the image {printable(name)} has the {side} {value!r}"[:200])


def _check_annotation(annotation: Mapping[str, Any]) -> None:
    who = f"the annotation {annotation.get('id')!r}"[:100]
    if not isinstance(annotation.get("image_id"), int | str):
        raise ValueError(f"{who} has no image_id")
    if "segments_info" in annotation:
        raise ValueError(f"{who} is panoptic: its masks are pictures, which are not moved")
    box = annotation.get("bbox") or []
    if not _numbers(box) or len(box) not in (0, 4):
        raise ValueError(f"{who} has a bbox that is not x, y, width, height")
    points = annotation.get("keypoints") or []
    if not _numbers(points) or len(points) % 3:
        raise ValueError(f"{who} has keypoints that are not x, y, visibility")
    if not _numbers([annotation.get("area") or 0]):
        raise ValueError(f"{who} has an area that is no number")
    shape = annotation.get("segmentation") or []
    if isinstance(shape, dict):
        try:
            _runs(shape)
        except ValueError as exc:
            raise ValueError(f"{who} has a mask that {exc}") from exc
    elif not isinstance(shape, list) or not all(
        _numbers(polygon) and len(polygon) % 2 == 0 for polygon in shape
    ):
        raise ValueError(f"{who} has a segmentation that is neither polygons nor run lengths")


def _numbers(some: object) -> bool:
    """Whether something is a list of numbers; `foreign` lets no others in than finite ones."""
    return isinstance(some, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and -LARGEST < one < LARGEST
        for one in some
    )


# --- places
# --------------------------------------------------------------------------------------------------


def _moved(annotation: dict[str, Any], move: Move) -> dict[str, Any]:
    if not move.moves:
        return annotation
    fresh = dict(annotation)
    if box := annotation.get("bbox"):
        left, top, width, height = box
        x0, y0, x1, y1 = move.box(left, top, left + width, top + height)
        fresh["bbox"] = [rounded(value) for value in (x0, y0, x1 - x0, y1 - y0)]
    if annotation.get("area"):
        across, down = move.factors
        fresh["area"] = rounded(annotation["area"] * across * down)
    if points := annotation.get("keypoints"):
        fresh["keypoints"] = [
            value for i in range(0, len(points), 3) for value in _point(points[i : i + 3], move)
        ]
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        fresh["segmentation"] = _moved_mask(shape, move)
    elif shape:
        fresh["segmentation"] = [
            [rounded(v) for i in range(0, len(p), 2) for v in move.point(p[i], p[i + 1])]
            for p in shape
        ]
    return fresh


def _point(point: Sequence[float], move: Move) -> tuple[float, float, float]:
    """A point that is not labelled (visibility 0) stays at 0, 0."""
    x, y, seen = point
    if not seen and not x and not y:
        return x, y, seen
    x, y = move.point(x, y)
    return rounded(x), rounded(y), seen


# --- run lengths
# --------------------------------------------------------------------------------------------------


def _runs(mask: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The run lengths of a mask; a ValueError where they are none, or do not fill its size."""
    size, counts = mask.get("size"), mask.get("counts")
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(isinstance(n, int) and 0 < n < 1 << 20 for n in size)
    ):
        raise ValueError("has no size")
    if isinstance(counts, str):
        counts = _from_text(counts)
    if not isinstance(counts, list) or not all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts
    ):
        raise ValueError("has no run lengths")
    if sum(counts) != size[0] * size[1]:
        raise ValueError("does not fill its size")
    return np.array(counts, np.int64)


def _moved_mask(mask: Mapping[str, Any], move: Move) -> dict[str, Any]:
    runs, (height, width) = _runs(mask), mask["size"]
    values = np.arange(len(runs), dtype=np.uint8) & 1
    flat = np.repeat(values, runs)
    fresh = move.mask(flat.reshape(width, height).T)
    down = fresh.T.ravel()  # column by column
    edges = np.flatnonzero(np.diff(down)) + 1
    counts = np.diff(np.concatenate([[0], edges, [down.size]])).tolist()
    if down[0]:
        counts = [0, *counts]
    text = isinstance(mask["counts"], str)
    return {**mask, "size": list(fresh.shape), "counts": _to_text(counts) if text else counts}


def _from_text(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 40:
            raise ValueError("has run lengths that are no text of COCO's")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("has run lengths that are cut off")
    return counts


def _to_text(counts: Sequence[int]) -> str:
    return "".join(_letters(counts))


def _letters(counts: Sequence[int]) -> Iterable[str]:
    for i, count in enumerate(counts):
        value = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            code, value = value & 31, value >> 5
            more = value != (-1 if code & 16 else 0)
            yield chr(code + (32 if more else 0) + 48)
