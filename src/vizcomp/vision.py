"""The systems that look: what they answer, and what "the same answer" means. The one place that knows.

    system = open_system("text")                     # or inception, watcher, torchvision:NAME, PATH.onnx, PATH.safetensors
    before, after = system.answers([source, result])
    compare(before, after).same

An answer is `Classes` (probabilities of classes) or `Boxes` (places, perhaps with labels). Two answers compare to a score in 0..1
and to a verdict under a tolerance. A further system joins by an entry point of the group `vizcomp.systems`: a name, and a
callable without arguments that gives a `System`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp import metrics
from vizcomp.errors import InputError, MissingExtraError, ModelError, SettingsError, VizcompError, WeightsMissingError, first_line
from vizcomp.files.place import cache_folder
from vizcomp.weights import cache, table
from vizcomp.weights.download import fetch

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
Quads = npt.NDArray[np.float64]  # (N, 4, 2), corners x, y in pixels

NOWHERE: Quads = np.empty((0, 4, 2))
GROUP = "vizcomp.systems"
OURS = ("inception", "watcher", "inception-v3")
NAMES = (*OURS, "text")
HINT = "use inception, watcher, inception-v3, text, torchvision:NAME, or the path of an .onnx or .safetensors file"
MAX_INPUT_SIDE = 8192  # pixels of a model's input: a damaged or hostile one must not take all memory
BATCH, BATCH_SMALL = 64, 1024  # images that are made ready together: of any size, and 32x32 ones
BOX_MARGIN = 0.15  # of a box's shorter side, around it in an importance map, and 8 pixels at least
DETECTOR_LEAST, DETECTOR_MOST = 736, 2000  # RapidOCR's detector sees a shorter side of at least, a longer one of at most so much
SMALL_LETTERING = 37.0  # pixels of its input: lettering up to this height keeps all that the quality promises
LESS_LARGE, MOST_LESS = 0.15, 0.6  # what it is worth less, for each doubling of that height, and at most
AROUND = 16  # pixels around a box that is to be found again
SAME_PLACE = 0.3  # IoU from which two boxes are one place
FALLOFF = 0.0375  # beyond that margin, of the image's longer side: 24 pixels of 640
LEAST_SCORE = 0.5  # boxes below this confidence are no answer, where the model leaves that open


# --- answers --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """What a classifier answers.

    Attributes:
        probabilities: float32 (C,), sum 1.
        names: of the classes, or () where the model does not say.
    """

    probabilities: Array
    names: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    def words(self) -> str:
        """For people: "cat 93%"."""
        name = self.names[self.best] if self.names else f"class {self.best}"
        return f"{name} {100 * float(self.probabilities[self.best]):.0f}%"


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """What a detector answers.

    Attributes:
        quads: float64 (N, 4, 2), corners x, y in pixels.
        labels: of each box, or () where there is one kind only.
        size: width and height of the image.
    """

    quads: npt.NDArray[np.float64]
    labels: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)

    def words(self) -> str:
        """For people: "3 boxes" or "2 person, 1 dog"."""
        if not self.labels:
            return f"{len(self.quads)} box{'' if len(self.quads) == 1 else 'es'}"
        counts = {label: self.labels.count(label) for label in dict.fromkeys(self.labels)}
        return ", ".join(f"{count} {label}" for label, count in counts.items())


Answer = Classes | Boxes


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How an answer stands to the answer on the source.

    Attributes:
        score: 0..1. Classes: share of probability that both answers put on the same classes. Boxes: F1 at IoU 0.5.
        same: the verdict.
        matched, reference, found: boxes; 0 for classes.
        unlike: float64 (N, 4, 2), the boxes of either answer that have no partner in the other; None where nobody asked for
            them, or for classes.
    """

    score: float
    same: bool
    matched: int = 0
    reference: int = 0
    found: int = 0
    unlike: Quads | None = dataclasses.field(default=None, compare=False, repr=False)


def is_empty(answer: Answer) -> bool:
    """Whether a detector found nothing; a classifier always says something."""
    return isinstance(answer, Boxes) and not len(answer.quads)


def compare(reference: Answer, found: Answer, *, tolerance: float = 0.0, where: bool = False) -> Comparison:
    """Whether `found`, the answer on a result, is the same as `reference`, the answer on its source.

    Classes are the same if the source's best class is still the best, or is at most `tolerance` (relative) less probable than
    the best. Boxes are the same if their F1 with the source's, matched one to one at IoU 0.5 with equal labels, is at least
    1 - `tolerance`; none against none is the same.

    Args:
        where: say too which boxes have no partner.

    Raises:
        SettingsError: answers of different kinds, or of different classes.
    """
    if isinstance(reference, Classes) and isinstance(found, Classes):
        p, q = reference.probabilities, found.probabilities
        if p.shape != q.shape:
            raise SettingsError("answers over different classes cannot be compared")
        same = float(q[reference.best]) >= (1 - tolerance) * float(q.max())
        return Comparison(float(np.minimum(p, q).sum().clip(0, 1)), bool(same))
    if isinstance(reference, Boxes) and isinstance(found, Boxes):
        mine, theirs = _matched(reference, found)
        count = len(reference.quads) + len(found.quads)
        score = 2 * len(mine) / count if count else 1.0
        without = np.concatenate([np.delete(reference.quads, mine, 0), np.delete(found.quads, theirs, 0)]) if where else None
        same = score >= 1 - tolerance - 1e-12
        return Comparison(score, same, len(mine), len(reference.quads), len(found.quads), without)
    raise SettingsError("a classifier's answer cannot be compared with a detector's")


def _matched(reference: Boxes, found: Boxes) -> tuple[list[int], list[int]]:
    """The boxes that have a partner of the same label, by index in each of the answers."""
    pairs = []
    for label in dict.fromkeys(reference.labels) if reference.labels else [None]:
        mine = [i for i in range(len(reference.quads)) if label is None or reference.labels[i] == label]
        theirs = [i for i in range(len(found.quads)) if label is None or found.labels[i] == label]
        pairs += [(mine[i], theirs[j]) for i, j, _ in metrics.match_boxes(reference.quads[mine], found.quads[theirs])]
    return [i for i, _ in pairs], [j for _, j in pairs]


def together(places: Quads, others: Quads | None) -> Quads:
    """Some places, and those of the others that overlap none of them."""
    for quad in NOWHERE if others is None else others:
        if not metrics.match_boxes(places, quad[None], SAME_PLACE):
            places = np.concatenate([places, quad[None]])
    return places


def surroundings(quads: Quads, height: int, width: int) -> Array:
    """`boxes_importance` of boxes that are larger by `AROUND` pixels and half their shorter side, all around."""
    corners = np.stack([quads.min(1), quads.max(1)], 1)  # (N, 2, 2)
    margin = AROUND + 0.5 * (corners[:, 1] - corners[:, 0]).min(1, keepdims=True)  # (N, 1)
    return boxes_importance(np.stack([corners[:, 0] - margin, corners[:, 1] + margin], 1), height, width)


# --- systems --------------------------------------------------------------------------------------------------------


@runtime_checkable
class System(Protocol):
    """What looks at images.

    Attributes:
        name: by which it was asked for.
        kind: "classes" or "boxes".
        fingerprint: names the weights and the version, for a report; 12 hexadecimal digits or a version.
        classes: names of the classes; () where unknown or none.
        native: side of the images that it is made for, 0 for any.
    """

    name: str
    kind: Literal["classes", "boxes"]
    fingerprint: str
    classes: tuple[str, ...]
    native: int

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        """The answers on uint8 (H, W, 3) RGB images of any sizes, in their order."""
        ...

    def importance(self, image: Pixels) -> Array:
        """Where the system looks: float32 (h, w) in 0..1 over the whole image, at any resolution."""
        ...


def open_system(spec: str, *, offline: bool = False) -> System:
    """A system by name.

    Args:
        spec: inception, watcher, inception-v3, text, torchvision:NAME, the path of an .onnx or .safetensors file, a model that
            `weights add` named, or an entry point's name.
        offline: never touch the network.

    Raises:
        ModelError: unknown, damaged, or of no use here.
        WeightsMissingError: official weights that are not in the cache and could not be had.
        MissingExtraError: an optional package is missing.
    """
    if spec == "text":
        return TextSystem()
    if spec in OURS or spec.lower().endswith(".safetensors") or cache.added_model(spec):
        return TorchClassifier.ours(spec, offline=offline)
    if spec.startswith("torchvision:"):
        return _torchvision(spec, offline=offline)
    if spec.lower().endswith(".onnx"):
        return OnnxSystem(Path(spec))
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name == spec:
            return _plugged(point)
    raise ModelError(f"unknown vision system {spec!r}", HINT)


def _plugged(point: importlib.metadata.EntryPoint) -> System:
    try:
        system = point.load()()
    except VizcompError:
        raise
    except Exception as exc:
        raise ModelError(
            f"the vision system {point.name} of {point.value} cannot be loaded: {exc}", "update its package"
        ) from exc
    if not isinstance(system, System):
        raise ModelError(
            f"{point.value} gives no vision system", "it needs name, kind, answers and importance: see docs/vision.md"
        )
    return system


def file_fingerprint(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def fitted(image: Pixels, height: int, width: int) -> Pixels:
    """An image at the size a network wants: scaled until it covers it, then cut in its middle. uint8 (H, W, 3)."""
    if image.shape[:2] == (height, width):
        return image
    scale = max(height / image.shape[0], width / image.shape[1])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    scaled = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(scaled.crop((left, top, left + width, top + height)))


def boxes_importance(
    quads: npt.NDArray[np.float64], height: int, width: int, worth: npt.NDArray[np.float64] | None = None
) -> Array:
    """1, or what the box is worth, inside each box and a margin around it, falling to 0 over `FALLOFF`: float32 (height, width).

    Quadrilaterals by their bounds. A detector looks at the surroundings of what it finds: with a hard edge in the place of the
    fall it found fewer boxes again at equal bytes.
    """
    found = np.zeros((height, width), np.float32)
    fall = max(8.0, FALLOFF * max(height, width))
    for quad, most in zip(quads, np.ones(len(quads)) if worth is None else worth, strict=True):
        (left, top), (right, bottom) = quad.min(0), quad.max(0)
        margin = max(8.0, BOX_MARGIN * min(right - left, bottom - top))
        reach = margin + fall
        rows = np.arange(max(0, int(top - reach)), min(height, int(np.ceil(bottom + reach))))
        cols = np.arange(max(0, int(left - reach)), min(width, int(np.ceil(right + reach))))
        if not len(rows) or not len(cols):
            continue
        down = np.maximum(0, np.maximum(top - margin - rows, rows + 1 - bottom - margin))
        across = np.maximum(0, np.maximum(left - margin - cols, cols + 1 - right - margin))
        near = 1 - np.hypot(down[:, None], across[None]) / fall
        place = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
        found[place] = np.maximum(found[place], most * near.clip(0, 1))
    return found


def _softmax(logits: npt.NDArray[Any]) -> Array:
    shifted = logits.astype(np.float64) - logits.max()
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(), np.float32)


def _checked(answer: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if not np.isfinite(answer).all():
        raise InputError(f"{name} answers with numbers that are not finite", "check the model and its normalisation")
    return answer


class TorchClassifier:
    """A classifier in torch: ours, or one of torchvision.

    Args:
        module: takes what `prepare` made, stacked, and gives logits (N, C).
        prepare: uint8 (H, W, 3) to a float tensor (3, h, w).
        camera: the module whose output, float (N, c, h, w), says where it looks (Selvaraju et al. 2017, Grad-CAM).
    """

    kind: Literal["classes", "boxes"] = "classes"

    def __init__(
        self,
        name: str,
        module: Any,
        prepare: Callable[[Pixels], Any],
        classes: tuple[str, ...],
        fingerprint: str,
        camera: Any,
        native: int = 0,
    ) -> None:
        self.name, self.classes, self.fingerprint, self.native = name, classes, fingerprint, native
        self._module, self._prepare, self._camera = module, prepare, camera
        self._mixed = False

    @classmethod
    def ours(cls, spec: str, *, offline: bool = False) -> TorchClassifier:
        """`inception`, `watcher`, the published `inception-v3`, or a model.safetensors of `vizcomp train --kind classifier`."""
        import torch

        from vizcomp.nets import classifiers

        module = classifiers.load_folded(spec, offline=offline)
        path = classifiers.file_of(spec, offline=True)

        def prepare(image: Pixels) -> torch.Tensor:
            return torch.from_numpy(fitted(image, 32, 32).copy()).permute(2, 0, 1).float().div_(255)

        blocks = [m for _, m in module.network.named_children() if not isinstance(m, torch.nn.Linear)]
        return cls(spec, module, prepare, module.classes, file_fingerprint(path), blocks[-1], 32)

    def hurry(self) -> None:
        """From now on multiply in bfloat16 where the processor has instructions for that: about twice as fast.

        The best class stays what it is in float32: where it leads by little the image is answered again in float32. Other
        probabilities differ by up to about 0.01.
        """
        from vizcomp.nets import classifiers

        self._mixed = classifiers.multiplies_bfloat16()

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        import torch

        from vizcomp.nets import classifiers

        found = [np.zeros((0, len(self.classes)), np.float32)]
        with torch.inference_mode():
            step = BATCH_SMALL if self.native else BATCH
            for start in range(0, len(images), step):
                views = torch.stack([self._prepare(image) for image in images[start : start + step]])
                found.append(classifiers.logits_of(self._module, views, mixed=self._mixed).numpy())
        logits = _checked(np.concatenate(found[1:] or found), self.name)
        return [Classes(_softmax(row), self.classes) for row in logits]

    def importance(self, image: Pixels) -> Array:
        import torch

        kept: list[torch.Tensor] = []

        def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.detach().requires_grad_(True)
            kept.append(output)
            return output

        handle = self._camera.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                logits = self._module(self._prepare(image)[None])
                logits[0, int(logits.argmax())].backward()
        finally:
            handle.remove()
        seen, slope = kept[0].detach()[0], kept[0].grad
        if slope is None or seen.ndim != 3:
            return np.ones((1, 1), np.float32)
        heat = (slope[0].mean((1, 2), keepdim=True) * seen).sum(0).clamp_min(0)
        largest = float(heat.max())
        if not largest > 0:
            return np.ones((1, 1), np.float32)  # nothing stands out: nothing may be given up
        return np.asarray((heat / largest).numpy(), np.float32)


def _torchvision(spec: str, *, offline: bool) -> System:
    """Any classifier or detector of torchvision with its official weights, kept in our cache."""
    try:
        import torch
        import torchvision
    except ImportError as exc:
        raise ModelError("torchvision is not installed", "pip install torchvision") from exc
    name = spec.removeprefix("torchvision:")
    try:
        choice = torchvision.models.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError) as exc:
        raise ModelError(f"torchvision has no model {name!r} with weights", "as torchvision:resnet18") from exc
    folder = cache_folder() / "torchvision"
    file = folder / "checkpoints" / Path(choice.url).name
    by_hand = f"put {file.name} into {file.parent}"
    if not file.is_file():
        if cache.is_offline(offline):
            raise WeightsMissingError(f"the weights of {spec} are not in the cache", f"run once without --offline, or {by_hand}")
        # torchvision names its files NAME-HASH.pth, by the first digits of their SHA-256; torch's own download neither resumes
        # nor locks, and says little where it fails
        digits = file.stem.rpartition("-")[2]
        known = digits if re.fullmatch(r"[0-9a-f]{8,64}", digits) else ""
        fetch((table.Source(choice.url),), file, sha256=known, by_hand=by_hand)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    try:
        module = torchvision.models.get_model(name, weights=choice, progress=False).eval().requires_grad_(False)
    except (OSError, RuntimeError) as exc:
        why = first_line(exc)
        raise ModelError(f"the weights of {spec} cannot be read: {why}", f"remove {file}, and try again") from exc
    finally:
        torch.hub.set_dir(before)
    preset = choice.transforms()
    names = tuple(str(n) for n in choice.meta.get("categories", ()))
    fingerprint = file_fingerprint(file) if file.is_file() else torchvision.__version__

    def prepare(image: Pixels) -> Any:
        return preset(torch.from_numpy(image.copy()).permute(2, 0, 1))

    if "num_params" in choice.meta and "box_map" in str(choice.meta.get("_metrics", "")):
        return TorchDetector(spec, module, prepare, names, fingerprint)
    convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    if not convolutions:
        return TorchClassifier(spec, module, prepare, names, fingerprint, module)
    return TorchClassifier(spec, module, prepare, names, fingerprint, convolutions[-1])


class TorchDetector:
    """A detector with torchvision's manner: a list of images in, dicts of boxes, labels and scores out."""

    kind: Literal["classes", "boxes"] = "boxes"
    native = 0

    def __init__(
        self, name: str, module: Any, prepare: Callable[[Pixels], Any], classes: tuple[str, ...], fingerprint: str
    ) -> None:
        self.name, self.classes, self.fingerprint = name, classes, fingerprint
        self._module, self._prepare = module, prepare

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        import torch

        found: list[Answer] = []
        for image in images:
            with torch.inference_mode():
                one = self._module([self._prepare(image)])[0]
            keep = one["scores"] >= LEAST_SCORE
            quads = _quads(_checked(one["boxes"][keep].numpy().astype(np.float64), self.name))
            labels = tuple(self._label(int(i)) for i in one["labels"][keep])
            found.append(Boxes(quads, labels, (image.shape[1], image.shape[0])))
        return found

    def _label(self, index: int) -> str:
        return self.classes[index] if index < len(self.classes) else f"class {index}"

    def importance(self, image: Pixels) -> Array:
        return _where_boxes_are(self, image)


def _quads(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 4) left, top, right, bottom to (N, 4, 2)."""
    x0, y0, x1, y1 = corners.reshape(-1, 4).T
    return np.stack([np.stack([x0, y0], 1), np.stack([x1, y0], 1), np.stack([x1, y1], 1), np.stack([x0, y1], 1)], 1)


def _where_boxes_are(
    system: System, image: Pixels, worth: Callable[[Quads, int, int], npt.NDArray[np.float64]] | None = None
) -> Array:
    answer = system.answers([image])[0]
    assert isinstance(answer, Boxes)
    height, width = image.shape[:2]
    return boxes_importance(answer.quads, height, width, worth and worth(answer.quads, height, width))


class TextSystem:
    """Scene text found by RapidOCR with the models inside its wheel, one thread. Needs the extra `text`."""

    name = "text"
    kind: Literal["classes", "boxes"] = "boxes"
    classes: tuple[str, ...] = ()
    native = 0

    def __init__(self) -> None:
        try:
            import cv2
            from rapidocr import RapidOCR
        except ImportError as exc:
            raise MissingExtraError("rapidocr", "text") from exc
        cv2.setNumThreads(1)
        self.fingerprint = f"rapidocr {importlib.metadata.version('rapidocr')}"
        with _silent():
            self._engine = RapidOCR(
                params={
                    "Global.log_level": "critical",
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        found: list[Answer] = []
        for image in images:
            result = self._engine(np.ascontiguousarray(image[:, :, ::-1]), use_det=True, use_cls=False, use_rec=False)
            quads = np.zeros((0, 4, 2)) if result.boxes is None else np.asarray(result.boxes, np.float64).reshape(-1, 4, 2)
            found.append(Boxes(quads, (), (image.shape[1], image.shape[0])))
        return found

    def importance(self, image: Pixels) -> Array:
        return _where_boxes_are(self, image, lettering_worth)


def lettering_worth(quads: Quads, height: int, width: int) -> npt.NDArray[np.float64]:
    """What boxes (N, 4, 2) of lettering in an image of this size are worth to RapidOCR's detector: (N,) in 0..1.

    Large lettering is worth less than small: it is found by coarser detail (docs/decisions/0005-system-guide.md).
    """
    scale = min(1.0, DETECTOR_MOST / max(height, width))
    scale *= max(1.0, DETECTOR_LEAST / (scale * min(height, width)))
    tall = scale * (quads.max(1) - quads.min(1)).min(1)  # of each box, in pixels of the detector's input
    return np.asarray(1 - np.minimum(LESS_LARGE * np.log2(np.maximum(tall / SMALL_LETTERING, 1)), MOST_LESS))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


# --- any ONNX model -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxWords:
    """What an ONNX model does not say of itself: NAME.json beside NAME.onnx.

    Attributes:
        kind: "classes" or "boxes"; "" = by the outputs: one of two axes is a classifier's.
        layout: "NCHW" or "NHWC"; "" = by the shape.
        size: height and width; () = by the shape, or the image's own where that is free.
        range: the value that white has in the input, before mean and deviation: 1 or 255.
        mean, std: of each channel, in units of `range`.
        order: "RGB" or "BGR".
        classes: names.
        boxes, scores, labels: names of a detector's outputs; "" = boxes, scores and labels, or by their shapes.
        units: of a detector's boxes: "pixels" of its input, or "share" of it.
        least: boxes below this score are no answer.
    """

    kind: str = ""
    layout: str = ""
    size: tuple[int, ...] = ()
    range: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    order: str = "RGB"
    classes: tuple[str, ...] = ()
    boxes: str = ""
    scores: str = ""
    labels: str = ""
    units: str = "pixels"
    least: float = LEAST_SCORE

    @classmethod
    def read(cls, path: Path) -> OnnxWords:
        """From a JSON file; defaults where there is none.

        Raises:
            ModelError: the file cannot be read, or a value does not fit.
        """
        hint = "see docs/vision.md for its fields"
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as exc:
            raise ModelError(f"{path} cannot be read: {exc}", hint) from exc
        known: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or (strange := sorted(set(values) - set(known))):
            raise ModelError(f"{path}: unknown field {', '.join(strange) if isinstance(values, dict) else 'list'}", hint)
        try:
            made = {}
            for key, value in values.items():
                default = known[key]
                if isinstance(default, tuple):
                    kind: Any = str if key == "classes" else int if key == "size" else float
                    value = tuple(kind(v) for v in value)
                elif not isinstance(value, type(default)):
                    value = type(default)(value)
                made[key] = value
            words = cls(**made)
        except (TypeError, ValueError) as exc:
            raise ModelError(f"{path}: {exc}", hint) from exc
        fits = (
            words.kind in ("", "classes", "boxes")
            and words.layout in ("", "NCHW", "NHWC")
            and words.order in ("RGB", "BGR")
            and words.units in ("pixels", "share")
            and len(words.size) in (0, 2)
            and all(0 < s <= MAX_INPUT_SIDE for s in words.size)
            and len(words.mean) == len(words.std) == 3
            and all(s > 0 for s in words.std)
            and words.range > 0
        )
        if not fits:
            raise ModelError(f"{path}: a value is out of range", hint)
        return words


class OnnxSystem:
    """Any classifier or detector in ONNX, on one thread. It is tried on a grey image when it is opened.

    Raises:
        ModelError: no ONNX, more than one input, an input that is no image, or outputs that are neither classes nor boxes.
    """

    classes: tuple[str, ...]
    kind: Literal["classes", "boxes"]

    def __init__(self, path: Path, words: OnnxWords | None = None) -> None:
        from vizcomp.weights.sessions import open_session

        self.name = str(path)
        if not path.is_file():
            raise ModelError(f"{path} is not there", HINT)
        self.words = OnnxWords.read(path.with_suffix(".json")) if words is None else words
        try:
            self._session = open_session(str(path))
        except Exception as exc:  # ONNX Runtime has a class of its own for each cause
            raise ModelError(f"{path} cannot be read as an ONNX model: {first_line(exc)}", "export it again") from exc
        self.fingerprint = file_fingerprint(path)
        self.classes = self.words.classes
        try:
            self._outputs = [o.name for o in self._session.get_outputs()]
            self._read_input()
        except UnicodeDecodeError as exc:
            raise ModelError(f"{path} is damaged: its names are no text", "export it again") from exc
        self.native = self._size[0] if self._size and self._size[0] == self._size[1] <= 64 else 0
        self.kind = self._find_kind()

    def _wrong(self, what: str, hint: str = "") -> ModelError:
        return ModelError(
            f"{self.name}: {what}", hint or f"say it in {Path(self.name).with_suffix('.json').name}: see docs/vision.md"
        )

    def _read_input(self) -> None:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise self._wrong(
                f"a model with one image input is wanted, this one has {len(inputs)} inputs", "export it with one input"
            )
        shape, kind = inputs[0].shape, inputs[0].type
        self._input = inputs[0].name
        if kind not in ("tensor(float)", "tensor(uint8)", "tensor(float16)"):
            raise self._wrong(f"its input is {kind}, no image", "export it with a float or uint8 input")
        self._dtype: Any = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}[kind]
        if len(shape) != 4:
            raise self._wrong(f"its input has the shape {shape}, no batch of images", "export it with (N, 3, H, W)")
        fixed = [s if isinstance(s, int) and s > 0 else 0 for s in shape]
        layout = self.words.layout or ("NHWC" if fixed[3] == 3 and fixed[1] != 3 else "NCHW")
        channels = fixed[1] if layout == "NCHW" else fixed[3]
        if channels not in (0, 3):
            raise self._wrong(f"its input has {channels} channels in the layout {layout}, not 3")
        own = (fixed[2], fixed[3]) if layout == "NCHW" else (fixed[1], fixed[2])
        if self.words.size and any(a and a != b for a, b in zip(own, self.words.size, strict=True)):
            raise self._wrong(f"its input is {own[0]}x{own[1]}, not {self.words.size[0]}x{self.words.size[1]}")
        if max(own) > MAX_INPUT_SIDE:
            raise self._wrong(
                f"its input is {own[0]}x{own[1]}, more than {MAX_INPUT_SIDE} a side", "export it with a smaller input"
            )
        self._layout = layout
        self._size = self.words.size or (own if all(own) else ())
        self._batch = 1 if fixed[0] == 1 else 0

    def _find_kind(self) -> Literal["classes", "boxes"]:
        try:
            outputs = self._run(np.full((*(self._size or (224, 224)), 3), 128, np.uint8)[None])
        except InputError as exc:
            raise self._wrong(f"it fails on a grey image: {exc.message}") from exc
        if self.words.kind == "boxes" or (not self.words.kind and any(a.shape[-1:] == (4,) for a in outputs.values())):
            self._box_outputs(outputs)
            return "boxes"
        first = outputs[self._outputs[0]]
        if not (first.ndim and first.size) or first.size // len(first) < 2 or first.size > 1_000_000:
            raise self._wrong(f"its output {self._outputs[0]} has the shape {first.shape}: neither classes nor boxes")
        count = first.reshape(len(first), -1).shape[1]
        if self.classes and len(self.classes) != count:
            raise self._wrong(f"it answers {count} classes, {len(self.classes)} are named")
        return "classes"

    def _run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """uint8 (N, H, W, 3) of one size through the model."""
        views: Any = images if self.words.order == "RGB" else images[..., ::-1]
        if self._dtype != np.uint8:
            scaled = views.astype(np.float32) * (self.words.range / 255)
            with np.errstate(over="ignore", invalid="ignore"):  # an odd model's std: its answer is checked
                views = (scaled - np.array(self.words.mean, np.float32)) / np.array(self.words.std, np.float32)
                views = views.astype(self._dtype)
        if self._layout == "NCHW":
            views = views.transpose(0, 3, 1, 2)
        try:
            found = self._session.run(None, {self._input: np.ascontiguousarray(views)})
        except Exception as exc:
            raise InputError(f"{self.name} fails: {first_line(exc)}", "check the model's input") from exc
        return dict(zip(self._outputs, (np.asarray(f) for f in found), strict=True))

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        if self.kind == "boxes":
            return [self._boxes(image) for image in images]
        found: list[Answer] = []
        step = 1 if self._batch or not self._size else 64
        for start in range(0, len(images), step):
            some = images[start : start + step]
            views = np.stack([fitted(i, *self._size) for i in some]) if self._size else some[0][None]
            rows = self._run(views)[self._outputs[0]]
            if not rows.size or rows.size % len(views):
                raise InputError(f"{self.name} answers {rows.shape} for {len(views)} images", "export it with a free batch size")
            rows = rows.reshape(len(views), -1)
            found += [Classes(self._probabilities(row), self.classes) for row in _checked(rows, self.name)]
        return found

    def _probabilities(self, row: npt.NDArray[Any]) -> Array:
        already = row.min() >= 0 and abs(float(row.sum()) - 1) < 1e-2
        return np.asarray(row / row.sum(), np.float32) if already else _softmax(row)

    def _box_outputs(self, outputs: dict[str, npt.NDArray[Any]]) -> tuple[str, str, str]:
        boxes = self.words.boxes or next((n for n, a in outputs.items() if n == "boxes" or a.shape[-1:] == (4,)), "")
        scores = self.words.scores or next((n for n in outputs if "score" in n.lower()), "")
        labels = self.words.labels or next((n for n in outputs if "label" in n.lower()), "")
        for what, name in (("boxes", boxes), ("scores", scores)):
            if name not in outputs:
                raise self._wrong(f"which of its outputs are the {what}? There are {', '.join(outputs)}")
        return boxes, scores, labels

    def _boxes(self, image: Pixels) -> Boxes:
        height, width = image.shape[:2]
        view = image
        if self._size and image.shape[:2] != tuple(self._size):
            view = np.asarray(Image.fromarray(image).resize((self._size[1], self._size[0]), Image.Resampling.BILINEAR))
        outputs = self._run(view[None])
        boxes, scores, labels = self._box_outputs(outputs)
        corners = _checked(outputs[boxes].reshape(-1, 4).astype(np.float64), self.name)
        sure = outputs[scores].reshape(len(corners), -1)
        keep = sure.max(1) >= self.words.least if sure.shape[1] else np.zeros(0, bool)
        across, down = (width, height) if self.words.units == "share" else (width / view.shape[1], height / view.shape[0])
        corners = corners[keep] * np.array([across, down, across, down])
        kinds = outputs[labels].reshape(-1)[keep] if labels in outputs else sure[keep].argmax(1) if sure.shape[1] > 1 else []
        named = tuple(self.classes[int(k)] if int(k) < len(self.classes) else f"class {int(k)}" for k in kinds)
        return Boxes(_quads(corners), named, (width, height))

    def importance(self, image: Pixels) -> Array:
        """Boxes with a margin; for a classifier how much the answer suffers when a place is covered (Zeiler and Fergus 2014)."""
        if self.kind == "boxes":
            return _where_boxes_are(self, image)
        rows = columns = 8
        height, width = image.shape[:2]
        down, across = np.linspace(0, height, rows + 1).astype(int), np.linspace(0, width, columns + 1).astype(int)
        grey = image.reshape(-1, 3).mean(0).astype(np.uint8)
        covered = []
        for r in range(rows):
            for c in range(columns):
                view = image.copy()
                view[down[r] : down[r + 1], across[c] : across[c + 1]] = grey
                covered.append(view)
        whole, *parts = self.answers([image, *covered])
        assert isinstance(whole, Classes)
        loss = np.array([whole.probabilities[whole.best] - p.probabilities[whole.best] for p in parts if isinstance(p, Classes)])
        heat = np.maximum(loss, 0).reshape(rows, columns).astype(np.float32)
        largest = float(heat.max())
        return heat / np.float32(largest) if largest > 1e-6 else np.ones((1, 1), np.float32)
