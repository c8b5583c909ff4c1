"""Any Python callable as a vision system: its answers checked, known by its name while it lives."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickle
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vizcomp.errors import InputError, SettingsError, in_one_line
from vizcomp.files.place import printable
from vizcomp.vision import system as base
from vizcomp.vision.answers import (
    COUNTED,
    Answer,
    Array,
    Boxes,
    Classes,
    Embedding,
    Keypoints,
    Kind,
    Masks,
    Pixels,
    Text,
)
from vizcomp.vision.boxes import corners_to_quads
from vizcomp.vision.poses import bounds
from vizcomp.vision.readings import LEAST_SIDE, MOST_PIXELS

KINDS: dict[str, type[Any]] = {
    "classes": Classes,
    "boxes": Boxes,
    "masks": Masks,
    "keypoints": Keypoints,
    "text": Text,
    "embedding": Embedding,
}
_TAKES = {
    "classes": "an array (C,) of probabilities",
    "boxes": (
        "an array (N, 4) of left, top, right, bottom in pixels, or a dict with boxes, and perhaps"
        " scores and labels"
    ),
    "masks": "an array (H, W) of whole numbers, 0 for background, of the image's size",
    "keypoints": (
        "an array (N, K, 2) of x, y in pixels or (N, K, 3) with certainties, or a dict with points,"
        " perhaps boxes"
    ),
    "text": "a list of lines, or a dict with lines, and perhaps boxes and scores",
    "embedding": "an array (C,)",
}
_LEAST_POINT = 0.3
MOST_CLASSES = 1 << 24  # the largest number of a class in a mask
_living: weakref.WeakValueDictionary[str, System] = weakref.WeakValueDictionary()


def living_system(name: str) -> System | None:
    """The callable that has this name in this process, or None."""
    return _living.get(name)


class System:
    """A Python callable as a vision system, wherever a name of one is taken: from Python, in the
    guide `system:NAME`, and in worker processes where it can be pickled (a function at the top of a
    module can).

        def digits(image):                       # uint8 (H, W, 3), RGB
            return network(image)                # probabilities, float (10,)

        system = vizcomp.System(digits, kind="classes", classes="0 1 2 3 4 5 6 7 8 9".split())

    Args:
        fn: takes one image, uint8 (H, W, 3), RGB, of any size, and answers by `kind`; or gives an
            object of `vision.answers`. classes: float (C,), probabilities. boxes: (N, 4) left, top,
            right, bottom in pixels, or a dict with `boxes` and perhaps `scores` and `labels`.
            masks: whole numbers (H, W), 0 for background. keypoints: (N, K, 2) x and y in pixels,
            (N, K, 3) with certainties, or a dict with `points` and perhaps `boxes` and `scores`.
            text: lines, or a dict with `lines` and perhaps `boxes` and `scores`. embedding: (C,).
        kind: what it answers.
        name: by which it is known; the callable's own where "".
        classes: names of the classes: of the probabilities, or of labels that are numbers.
        native: side of the images that it is for, 0 for any.
        batch: `fn` takes a list of images, and gives a list of answers.
        least: boxes, figures and lines below this score are no answer; points of a figure are
            seen from 0.3.
        importance: from an image to where it looks, float (h, w) in 0..1; by its answers where
            None.
        fingerprint: names its version; where "" a hash of its code, and of what it holds where that
            can be pickled.

    Raises:
        SettingsError: an unknown kind, something that cannot be called, or a name that cannot be
            used.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        kind: Kind,
        *,
        name: str = "",
        classes: Sequence[str] = (),
        native: int = 0,
        batch: bool = False,
        least: float = base.LEAST_SCORE,
        importance: Callable[[Pixels], Any] | None = None,
        fingerprint: str = "",
    ) -> None:
        if kind not in KINDS:
            raise SettingsError(
                f"kind {kind!r} is none of a vision system", f"use {', '.join(KINDS)}"
            )
        for what, function in (("the system", fn), ("importance", importance)):
            if function is not None and not callable(function):
                raise SettingsError(
                    f"{what} is a {type(function).__name__}, which cannot be called",
                    "give a function",
                )
        if isinstance(classes, str):
            raise SettingsError("classes is one text", "give a list of names")
        self.name = name or _name_of(fn)
        if not self.name.strip() or any(sign in self.name for sign in "+, \n"):
            raise SettingsError(
                f"a vision system cannot have the name {self.name!r}",
                "use one without spaces, + and commas",
            )
        self.kind: Kind = kind
        self.classes = tuple(classes)
        self.native = native
        self._fn, self._batch, self._least, self._importance = fn, batch, least, importance
        self.fingerprint = fingerprint or _hash_of(fn, (kind, self.classes, native, batch, least))
        _living[self.name] = self

    def __reduce__(self) -> tuple[Any, ...]:
        more: dict[str, Any] = {
            "name": self.name,
            "classes": self.classes,
            "native": self.native,
            "batch": self._batch,
            "least": self._least,
        }
        more |= {"importance": self._importance, "fingerprint": self.fingerprint}
        return functools.partial(type(self), **more), (self._fn, self.kind)

    @property
    def reading(self) -> str:
        """How it answers, in one line."""
        side = f"images of {self.native}x{self.native}" if self.native else "any input size"
        least = [f"from score {self._least:g}"] if self.kind in COUNTED else []
        named = [f"{len(self.classes)} classes named"] if self.classes else []
        return "; ".join(
            [self.kind, "Python callable", side, *least, *named, f"version {self.fingerprint}"]
        )

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        """As `vision.system.System.answers`.

        Raises:
            InputError: an answer that is not what its kind asks for.
        """
        images = list(images)
        if not self._batch:
            return [self._answer(self._fn(image.copy()), image) for image in images]
        if not images:
            return []
        answers = self._fn([image.copy() for image in images])
        if not isinstance(answers, Sequence | np.ndarray) or len(answers) != len(images):
            count = (
                f"{len(answers)} answers"
                if isinstance(answers, Sequence | np.ndarray)
                else f"a {type(answers).__name__}"
            )
            raise InputError(
                f"{self.name} gives {count} for {len(images)} images",
                "with batch=True: one answer for each image",
            )
        return [self._answer(one, image) for one, image in zip(answers, images, strict=True)]

    def importance(self, image: Pixels) -> Array:
        """As `vision.system.System.importance`."""
        if self._importance is None:
            return base.answer_importance(self, image)
        heat = self._array(
            self._importance(image.copy()), "importance", 2, "an array (h, w) in 0..1"
        )
        if not heat.size or heat.min() < 0 or heat.max() > 1:
            raise InputError(
                f"{self.name}: its importance leaves 0..1", "give an array (h, w) in 0..1"
            )
        return np.asarray(heat, np.float32)

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self.name}: {what}", f"kind={self.kind!r}: give {_TAKES[self.kind]}")

    def _array(self, value: Any, what: str, axes: int, wanted: str = "") -> Any:
        """A finite array with so many axes, float64; whole numbers stay such."""
        try:
            array = np.asarray(value)
            array = array if array.dtype.kind in "iub" else array.astype(np.float64)
        # a tensor that is on another device, or needs gradients, or anything
        except Exception as exc:
            raise self._wrong(
                f"its {what} is a {type(value).__name__}, which makes no array ({in_one_line(exc)})"
            ) from exc
        if not array.size and array.ndim != axes:
            return np.zeros((0,) * axes)
        if array.ndim != axes:
            raise self._wrong(f"its {what} has the shape {array.shape}")
        if not np.isfinite(array).all():
            raise self._wrong(f"its {what} has numbers that are not finite")
        return array

    def _answer(self, made: Any, image: Pixels) -> Answer:
        wanted = KINDS[self.kind]
        if isinstance(made, wanted):
            return made  # type: ignore[no-any-return]
        if isinstance(made, tuple(KINDS.values())):
            raise self._wrong(f"it answers {type(made).__name__}")
        if made is None:
            raise self._wrong("it answers None")
        answer: Answer = getattr(self, f"_{self.kind}")(made, image)
        return answer

    def _classes(self, made: Any, image: Pixels) -> Classes:
        row = self._array(made, "answer", 1)
        if row.size < 2 or row.min() < 0 or row.max() > 2 or abs(float(row.sum()) - 1) > 1e-2:
            what = (
                "it answers one number"
                if row.size < 2
                else "its numbers are no probabilities: below 0, or not of sum 1"
            )
            raise self._wrong(f"{what}; of logits take a softmax" if row.size >= 2 else what)
        if self.classes and len(self.classes) != row.size:
            raise self._wrong(f"it answers {row.size} classes, {len(self.classes)} are named")
        return Classes(np.asarray(row / row.sum(), np.float32), self.classes)

    def _boxes(self, made: Any, image: Pixels) -> Boxes:
        parts = self._parts(made, "boxes", ("scores", "labels"))
        size = (image.shape[1], image.shape[0])
        quads = self._quads(parts["boxes"], size)
        scores = self._rows(parts.get("scores"), "scores", len(quads))
        labels = self._labels(parts.get("labels"), len(quads))
        if scores is not None:
            if len(scores) and (scores.min() < 0 or scores.max() > 1.01):
                raise self._wrong("its scores leave 0..1")
            sure = scores >= self._least
            labels = (
                tuple(label for label, good in zip(labels, sure, strict=True) if good)
                if labels
                else ()
            )
            quads, scores = quads[sure], np.asarray(scores[sure], np.float32)
        return Boxes(quads, labels, size, scores)

    def _masks(self, made: Any, image: Pixels) -> Masks:
        array = self._array(made, "answer", 2)
        if array.shape != image.shape[:2]:
            raise self._wrong(
                f"its mask is {array.shape[1]}x{array.shape[0]}, the image"
                f" {image.shape[1]}x{image.shape[0]}"
            )
        if (array != np.round(array)).any() or array.min() < 0 or array.max() > MOST_CLASSES:
            raise self._wrong("its mask has numbers that are no classes")
        return Masks(array.astype(np.int32), self.classes)

    def _keypoints(self, made: Any, image: Pixels) -> Keypoints:
        parts = self._parts(made, "points", ("boxes", "scores"))
        points = self._array(parts["points"], "points", 3)
        size = (image.shape[1], image.shape[0])
        if not len(points):
            return Keypoints(
                np.zeros((0, 1, 2)),
                np.zeros((0, 1), np.float32),
                np.zeros((0, 4)),
                size,
                _LEAST_POINT,
            )
        if points.shape[2] not in (2, 3):
            raise self._wrong(f"its points have the shape {points.shape}")
        self._in_pixels(points[..., :2], "points", size)
        sure = np.asarray(
            points[..., 2] if points.shape[2] == 3 else np.ones(points.shape[:2]), np.float32
        )
        keep = (sure >= _LEAST_POINT).any(1)
        if (scores := self._rows(parts.get("scores"), "scores", len(points))) is not None:
            keep &= scores >= self._least
        corners = None
        if parts.get("boxes") is not None:
            quads = self._quads(parts["boxes"], size)
            if len(quads) != len(points):
                raise self._wrong(f"it gives {len(quads)} boxes for {len(points)} figures")
            corners = np.concatenate([quads.min(1), quads.max(1)], 1)[keep]
        places, sure = points[keep, :, :2].astype(np.float64), sure[keep]
        return Keypoints(
            places,
            sure,
            bounds(places, sure, _LEAST_POINT) if corners is None else corners,
            size,
            _LEAST_POINT,
        )

    def _text(self, made: Any, image: Pixels) -> Text:
        if isinstance(made, str):
            made = made.splitlines()
        parts = self._parts(made, "lines", ("boxes", "scores"))
        lines = parts["lines"]
        if (
            isinstance(lines, str)
            or not isinstance(lines, Sequence)
            or not all(isinstance(line, str) for line in lines)
        ):
            raise self._wrong("its lines are no list of texts")
        size = (image.shape[1], image.shape[0])
        whole = np.array([[0.0, 0.0, *size]])  # a line without a place can be anywhere
        quads = (
            corners_to_quads(whole.repeat(len(lines), 0))
            if parts.get("boxes") is None
            else self._quads(parts["boxes"], size)
        )
        if len(quads) != len(lines):
            raise self._wrong(f"it gives {len(quads)} boxes for {len(lines)} lines")
        scores = self._rows(parts.get("scores"), "scores", len(lines))
        sure = np.ones(len(lines)) if scores is None else scores
        some = [i for i, line in enumerate(lines) if line.strip() and sure[i] >= self._least]
        given = None if scores is None else np.asarray(scores[some], np.float32)
        return Text(tuple(lines[i].strip() for i in some), quads[some], size, given)

    def _embedding(self, made: Any, image: Pixels) -> Embedding:
        row = self._array(made, "answer", 1)
        if not row.size:
            raise self._wrong("its embedding is empty")
        return Embedding(np.asarray(row, np.float32))

    def _parts(self, made: Any, main: str, more: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(made, Mapping):
            return {main: made}
        if main not in made:
            raise self._wrong(
                f"its answer has no {main!r}, but {', '.join(map(repr, made)) or 'nothing'}"
            )
        if strange := [key for key in made if key not in (main, *more)]:
            raise self._wrong(
                f"its answer has {strange[0]!r}, which is not known beside"
                f" {', '.join((main, *more))}"
            )
        return made

    def _rows(self, value: Any, what: str, count: int) -> Any:
        if value is None:
            return None
        row = self._array(value, what, 1)
        if len(row) != count:
            raise self._wrong(f"it gives {len(row)} {what} for {count} places")
        return row

    def _labels(self, value: Any, count: int) -> tuple[str, ...]:
        if value is None:
            return ()
        labels = list(value)
        if len(labels) != count:
            raise self._wrong(f"it gives {len(labels)} labels for {count} boxes")
        return tuple(
            printable(label) if isinstance(label, str) else self._named(label) for label in labels
        )

    def _named(self, label: Any) -> str:
        try:
            number = int(label)
            if number != label:
                raise ValueError("a part of a class")
        except (TypeError, ValueError, OverflowError) as exc:
            raise self._wrong(
                f"a label is a {type(label).__name__}, neither text nor a whole number"
            ) from exc
        return self.classes[number] if 0 <= number < len(self.classes) else f"class {number}"

    def _quads(self, value: Any, size: tuple[int, int]) -> Any:
        try:
            axes = np.ndim(value)
        except ValueError:  # of several lengths: `_array` says so
            axes = 2
        corners = self._array(value, "boxes", 3 if axes == 3 else 2).astype(np.float64)
        if not corners.size:
            return np.zeros((0, 4, 2))
        if corners.shape[1:] not in ((4,), (4, 2)):
            raise self._wrong(f"its boxes have the shape {corners.shape}")
        self._in_pixels(corners, "boxes", size)
        if corners.ndim == 3:
            return corners
        if (corners[:, 2:] < corners[:, :2]).any():
            raise self._wrong("corners of a box are not in order (left, top, right, bottom)")
        return corners_to_quads(corners)

    def _in_pixels(self, places: Any, what: str, size: tuple[int, int]) -> None:
        """Places of which none is farther than two pixels from the corner are shares."""
        if min(size) > LEAST_SIDE and 0 < float(np.abs(places).max(initial=0)) <= MOST_PIXELS:
            raise self._wrong(
                f"all its {what} lie within two pixels of the corner: are they shares of the image?"
            )


def _name_of(fn: Any) -> str:
    inner = fn.func if isinstance(fn, functools.partial) else fn
    name = getattr(inner, "__qualname__", "") or type(inner).__qualname__
    return str(name).replace("<locals>.", "").replace("<lambda>", "lambda")


def _hash_of(fn: Any, beside: tuple[Any, ...]) -> str:
    """12 hexadecimal digits of a callable's code, and of what it holds where that can be
    pickled."""
    digest = hashlib.sha256(repr(beside).encode())
    inner = fn.func if isinstance(fn, functools.partial) else fn
    method = (
        inner
        if isinstance(inner, types.FunctionType | types.MethodType)
        else vars(type(inner)).get("__call__")
    )
    code = getattr(method, "__code__", None)
    if code is not None:
        _add_code(digest, code)
    try:
        digest.update(pickle.dumps(fn))
    except Exception:  # anything may refuse: then the code alone tells
        digest.update(_name_of(fn).encode())
    return digest.hexdigest()[:12]


def _add_code(digest: Any, code: types.CodeType) -> None:
    digest.update(code.co_code + repr(code.co_names).encode())
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            _add_code(digest, value)
        else:
            digest.update(repr(value).encode())


def can_travel(systems: Iterable[base.System]) -> bool:
    """Whether worker processes can have these objects: they are pickled, and not of the program's
    main module, which workers do not import."""
    try:
        return b"__main__" not in pickle.dumps(tuple(systems))
    except Exception:  # a lambda, a session of a network, anything
        return False


def brought(function: Callable[[Any], Any], task: Any) -> Callable[[Any], Any]:
    """The same function for another process, where the callables that a task names are known too.

    Args:
        task: the first of those to come.

    Raises:
        SettingsError: such a callable cannot be sent there.
    """
    texts = set(_texts(task)) if _living else set()
    systems = [
        system
        for name, system in _living.items()
        # by itself, as a guide, or as a value in what a codec is called
        if name in texts or any(f"system:{name}" in text or f"={name}" in text for text in texts)
    ]
    for system in systems:
        if not can_travel([system]):
            raise SettingsError(
                f"the vision system {system.name} cannot be sent to worker processes",
                "define its function at the top of a module that is imported, or use `jobs` 1",
            )
    return functools.partial(_with_systems, function, tuple(systems)) if systems else function


def _texts(value: Any) -> Iterator[str]:
    """Every text that a task holds as a value; the names of its fields are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, tuple | list | set | frozenset):
        for each in value:
            yield from _texts(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _texts(getattr(value, field.name))


def _with_systems(function: Callable[[Any], Any], systems: tuple[System, ...], task: Any) -> Any:
    """`function` of a task, while the systems are known."""
    for system in systems:
        _living.setdefault(system.name, system)
    return function(task)
