"""Do verdicts of `djpeg --verify` hold in other hands, and what do they cost?

Photos are made under the verdict of one system. Then source and result are read from disk by code
of this file alone: OpenCV decodes, OpenCV resizes by a filter of its own, the network runs without
vizcomp, and its boxes or its class are read here. Of the photos that are called verified, on how
many is the answer the same? For boxes: one to one at IoU 0.5, equal classes, from score 0.5 on,
none lost and none new; in brackets, without boxes within 0.002 (in doubt for the verdict too), 0.02
and 0.05 of that score on either side.

    python benchmarks/verify_margins.py                            # all four, 8 minutes on one core
    python benchmarks/verify_margins.py --system yolox --photos 20 # a look
    python benchmarks/verify_margins.py --system yolox --margins neither,margin,filters,both

`--part choose` takes the even places in the order of names, `report` the odd ones. Printed for each
system: photos that are verified, that are not reached, that have nothing to verify; bytes against
the smallest optimised plain JPEG under the same verdict, with a 95% bootstrap over photos; trials;
and what holds by filter. A photo whose own source is kept holds by itself, and is counted apart.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.records import FileRecord
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.vision import verify

SHARED = Path(__file__).parents[1].parent / "shared"
FILTERS = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
LEAST, OVERLAP = 0.5, 0.5
BANDS = (verify.DOUBT, 0.02, 0.05)  # about the least score: that of the verdict, and wider ones
PHOTOS = {"yolox": 64, "efficientnet": 64, "mobilenet": 64, "text": 16}

Image = np.ndarray
# corners (N, 4), classes (N,), scores (N,), in a view of one size
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def resized(image: Image, width: int, height: int, kind: int) -> Image:
    """An image at a size, by one of OpenCV's filters."""
    return cv2.resize(image, (width, height), interpolation=kind)


class Yolox:
    """YOLOX-Nano at 416x416: a letterbox in the corner, BGR, 0..255."""

    def __init__(self, path: Path) -> None:
        self._session = session(path)

    def __call__(self, image: Image, kind: int) -> Found:
        scale = 416 / max(image.shape[:2])
        view = np.full((416, 416, 3), 114, np.uint8)
        small = resized(image, int(image.shape[1] * scale), int(image.shape[0] * scale), kind)
        view[: small.shape[0], : small.shape[1]] = small
        rows = self._session.run(
            None, {"images": view.transpose(2, 0, 1)[None].astype(np.float32)}
        )[0][0]
        start = 0
        for stride in (8, 16, 32):
            side = 416 // stride
            across, down = np.meshgrid(np.arange(side), np.arange(side))
            part = rows[start : start + side * side]
            part[:, 0] = (part[:, 0] + across.ravel()) * stride
            part[:, 1] = (part[:, 1] + down.ravel()) * stride
            part[:, 2:4] = np.exp(part[:, 2:4]) * stride
            start += side * side
        scores = rows[:, 4] * rows[:, 5:].max(1)
        some = scores >= LEAST - BANDS[-1]
        centre, half = rows[some, :2], rows[some, 2:4] / 2
        return unique(
            np.concatenate([centre - half, centre + half], 1),
            rows[some, 5:].argmax(1),
            scores[some],
        )


class Classifier:
    """The middle 87.5%, resized by an integer crop and one filter; the number of the best class."""

    def __init__(self, run: Callable[[Image], np.ndarray]) -> None:
        self._run = run

    def __call__(self, image: Image, kind: int) -> int:
        side = round(0.875 * min(image.shape[:2]))
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        view = resized(image[top : top + side, left : left + side], 224, 224, kind)
        return int(self._run(np.ascontiguousarray(view[..., ::-1])).argmax())


class Lettering:
    """RapidOCR's detector on a photo that was brought to the size it looks at by another filter
    than its own."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        cv2.setNumThreads(1)
        threads = {
            f"EngineConfig.onnxruntime.{which}_op_num_threads": 1 for which in ("intra", "inter")
        }
        least = {"Det.box_thresh": LEAST - BANDS[-1]}
        self._engine = RapidOCR(params={"Global.log_level": "critical", **threads, **least})

    def __call__(self, image: Image, kind: int) -> Found:
        scale = max(1.0, 736 / min(image.shape[:2]))
        sides = [max(32, 32 * round(side * scale / 32)) for side in image.shape[:2]]
        result = self._engine(
            resized(image, sides[1], sides[0], kind), use_det=True, use_cls=False, use_rec=False
        )
        if result.boxes is None:
            return np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)
        corners = np.concatenate([result.boxes.min(1), result.boxes.max(1)], 1)
        return corners, np.zeros(len(corners), int), np.asarray(result.scores)


def session(path: Path) -> Any:
    """ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def efficientnet(path: Path) -> Classifier:
    """(x / 255 - 0.498) / 0.502 in planes."""
    opened = session(path)
    name = opened.get_inputs()[0].name

    def run(view: Image) -> np.ndarray:
        return opened.run(
            None,
            {
                name: (
                    ((view / np.float32(255) - 0.498) / 0.502)
                    .transpose(2, 0, 1)[None]
                    .astype(np.float32)
                )
            },
        )[0]

    return Classifier(run)


def mobilenet(path: Path) -> Classifier:
    """Bytes in, bytes out."""
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_path=str(path), num_threads=1)
    opened.allocate_tensors()
    source, result = (
        details[0]["index"] for details in (opened.get_input_details(), opened.get_output_details())
    )

    def run(view: Image) -> np.ndarray:
        opened.set_tensor(source, view[None])
        opened.invoke()
        return opened.get_tensor(result)[0]

    return Classifier(run)


def ious(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of corners (4,) with corners (N, 4)."""
    shared = np.maximum(
        np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0
    ).prod(1)
    return shared / (
        (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared + 1e-9
    )


def unique(corners: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> Found:
    """Of boxes of one class that overlap by more than half, the surest."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        rivals = [j for j in kept if classes[j] == classes[i]]
        if not len(rivals) or ious(corners[i], corners[rivals]).max() <= 0.5:
            kept.append(int(i))
    return corners[kept], classes[kept], scores[kept]


def lost(one: Found, other: Found, least: float) -> int:
    """How many boxes of at least this score in the first have no partner in the second, whatever
    score that has there."""
    free, gone = np.ones(len(other[0]), bool), 0
    for i in np.flatnonzero(one[2] >= least):
        overlap = (
            np.where(free & (other[1] == one[1][i]), ious(one[0][i], other[0]), 0)
            if len(other[0])
            else np.zeros(0)
        )
        if len(overlap) and overlap.max() >= OVERLAP:
            free[overlap.argmax()] = False
        else:
            gone += 1
    return gone


def holds(before: Any, after: Any) -> tuple[bool, ...]:
    """Whether an answer is the same: strictly, and with boxes in each of the bands left out."""
    if isinstance(before, int):
        return (before == after,) * (1 + len(BANDS))
    strict = [tuple(part[each[2] >= LEAST] for part in each) for each in (before, after)]
    same = [lost(*strict, LEAST) == lost(*strict[::-1], LEAST) == 0]
    for band in BANDS:
        wide = [tuple(part[each[2] >= LEAST - band] for part in each) for each in (before, after)]
        sure = lost(*wide, LEAST + band) == lost(*wide[::-1], LEAST + band) == 0
        same.append(sure)
    return tuple(same)


def made(
    name: str, margins: str, files: list[Any], folder: Path, options: argparse.Namespace
) -> tuple[list[FileRecord], Any]:
    """The records of a run under the verdict of a system, with some of the margins or all."""
    models = options.models
    specs = {
        "yolox": models / "yolox_nano.onnx",
        "efficientnet": f"{models / 'efficientnet_lite0.onnx'}:mean=0.498,std=0.502,crop=0.875",
        "mobilenet": f"{models / 'mobilenet_v2_1.0_224_quant.tflite'}:crop=0.875",
        "text": "text",
    }
    before = verify.LEAD, verify.DOUBT, verify.MARGIN
    if margins not in ("margin", "both"):
        verify.LEAD, verify.DOUBT, verify.MARGIN = -1.0, 0.0, 0.0
    guide = options.guide.replace("SYSTEM", f"system:{specs[name]}")
    batch = BatchSettings(verify=(str(specs[name]),), robust=margins in ("filters", "both"))
    try:
        run = run_djpeg(files, folder, DjpegSettings(guide=guide), batch, RunOptions(jobs=1))
    finally:
        verify.LEAD, verify.DOUBT, verify.MARGIN = before
    return list(run.records), run.totals


def _said(values: Any) -> str:
    strict, *loose = (str(value) for value in values)
    return f"{strict} ({', '.join(loose)})"


def told(name: str, margins: str, reader: Any, records: list[FileRecord], totals: Any) -> None:
    """Prints what came of it."""
    states = [record.verify_state for record in records]
    counts = {state: states.count(state) for state in ("verified", "not_reached", "nothing")}
    done = [
        record
        for record in records
        if record.verify_state == "verified" and record.output is not None
    ]
    changed = [record for record in done if record.status == "ok"]
    same = {kind: np.zeros(1 + len(BANDS), int) for kind in FILTERS}
    for record in changed:
        pair = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in (record.input, record.output)]
        for kind, number in FILTERS.items():
            same[kind] += holds(*(reader(image, number) for image in pair))
    shares = np.sum(list(same.values()), 0) / max(1, len(FILTERS) * len(changed))
    held = ", ".join(f"{kind} {_said(counts)}" for kind, counts in same.items())
    trials = np.mean([record.verify_trials for record in done]) if done else 0
    size = np.mean([record.output_bytes for record in done]) if done else 0
    rival = totals.rival or {"saving": float("nan"), "interval": [float("nan")] * 2, "photos": 0}
    print(
        f"{name}, {margins}: {len(records)} photos, {counts['verified']} verified"
        f" ({len(done) - len(changed)} by keeping the source), {counts['not_reached']} not reached,"
        f" {counts['nothing']} with nothing to verify, {len(records) - sum(counts.values())}"
        f" failed; {trials:.2f} trials\n  bytes against optimised JPEG under the same verdict,"
        f" {rival['photos']} photos: {-rival['saving']:+.1%} ({-rival['interval'][1]:+.1%} to"
        f" {-rival['interval'][0]:+.1%}); {size:.0f} bytes\n  hold of {len(changed)}: {held}; all"
        f" filters {_said([f'{share:.1%}' for share in shares])}",
        flush=True,
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--system", action="append", choices=list(PHOTOS))
    parser.add_argument(
        "--photos", type=int, default=0, help="of each system; 0: as many as fit into the time"
    )
    parser.add_argument("--part", choices=["choose", "report"], default="choose")
    parser.add_argument("--guide", default="depth+text", help="SYSTEM: the system itself")
    parser.add_argument(
        "--margins", default="both", help="neither, margin, filters, both; several joined by commas"
    )
    options = parser.parse_args()
    readers: dict[str, tuple[str, Callable[[], Any]]] = {
        "yolox": ("coco/images", lambda: Yolox(options.models / "yolox_nano.onnx")),
        "efficientnet": (
            "imagenet",
            lambda: efficientnet(options.models / "efficientnet_lite0.onnx"),
        ),
        "mobilenet": (
            "imagenet",
            lambda: mobilenet(options.models / "mobilenet_v2_1.0_224_quant.tflite"),
        ),
        "text": ("svt/photos", Lettering),
    }
    for name in options.system or list(PHOTOS):
        folder, opened = readers[name]
        reader, count = opened(), options.photos or PHOTOS[name]
        files = list(find_inputs([str(options.data / folder)]))[options.part == "report" :: 2]
        files = files[:: max(1, len(files) // count)][:count]
        for margins in options.margins.split(","):
            with tempfile.TemporaryDirectory() as place:
                told(name, margins, reader, *made(name, margins, files, Path(place), options))


if __name__ == "__main__":
    main()
