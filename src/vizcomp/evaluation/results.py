"""Settings, progress and results of an evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

from vizcomp.errors import SettingsError
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What is evaluated.

    Attributes:
        classifiers: vision systems by name; a codec may know the first, the others are unseen.
        data: class folders, CIFAR-10 in its published forms, or plain photos; "" for CIFAR-10 from
            the cache or its mirrors.
        codecs: ours; () = cifar for images of 32x32, djpeg for others.
        baselines: jpeg, webp, avif, jxl.
        limit: at most so many images, drawn by `seed`, evenly over the classes; 0 = all.
        seed: of the draw and of the bootstrap.
        max_pixels: larger photos are refused.
        decoder: who decodes sources and results, one of `photos.opencv.DECODERS`.
        offline: never touch the network.
    """

    classifiers: tuple[str, ...] = ("inception",)
    data: str = ""
    codecs: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("jpeg", "webp", "avif")
    limit: int = 0
    seed: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    decoder: str = "pillow"
    offline: bool = False

    def __post_init__(self) -> None:
        if not self.classifiers:
            raise SettingsError("no vision system is named", "add `classifier` inception")
        if self.limit < 0:
            raise SettingsError(
                f"a limit of {self.limit} images is not possible", "use 0 for all of them"
            )
        for what, names in (
            ("classifier", self.classifiers),
            ("codec", self.codecs),
            ("baseline", self.baselines),
        ):
            if len(set(names)) < len(names):
                raise SettingsError(f"a {what} is named twice", "name each once")

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far an evaluation is: chunks of images done, of how many, and what is being done."""

    done: int
    total: int
    what: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalPoint:
    """One codec at one setting in `vizcomp eval`: one row of the report.

    Attributes:
        codec, setting: as in "jpeg", "quality 30".
        ours: one of the codecs that are judged; False for a baseline.
        images: how many were coded.
        failed: how many could not be coded or decoded; they are in no mean.
        bytes_per_image: mean size of the files as they are on disk, header included.
        payload_bytes_per_image: without headers and tables where the format keeps them apart; else
            the same.
        bpp: bits of the files for each pixel.
        accuracy: for each classifier the share of images whose label it names; None without labels.
            For a system that gives boxes: None.
        agreement: for each system the mean score of its answer on the result against its answer on
            the source (classes: share of equal answers; boxes, figures and words: F1 over all
            images).
        top5: agreement of the first answer on the source with the first five on the result; None
            where there are no classes.
        recall, precision: of boxes, figures and words, for each system that gives them; None for
            others.
        interval: for each system the 95% bootstrap interval of its accuracy (of its agreement where
            there is no accuracy).
        psnr: dB, mean over images, identical ones left out; None where all are identical.
        ms_ssim: mean; None where the images are too small for it.
        encode_seconds, decode_seconds: for each image.
    """

    codec: str
    setting: str
    ours: bool
    images: int
    bytes_per_image: float
    payload_bytes_per_image: float
    bpp: float
    accuracy: dict[str, float | None]
    agreement: dict[str, float | None]
    top5: dict[str, float | None]
    recall: dict[str, float | None]
    precision: dict[str, float | None]
    interval: dict[str, tuple[float, float] | None]
    psnr: float | None
    ms_ssim: float | None
    encode_seconds: float
    decode_seconds: float
    failed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The point as a dict of JSON types."""
        return {
            **dataclasses.asdict(self),
            "interval": {k: None if v is None else list(v) for k, v in self.interval.items()},
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalExample:
    """One image of the gallery of `vizcomp eval`. Pictures are PNG or JPEG bytes of one size, small
    ones already enlarged.

    Attributes:
        name: of the image; `codec` and `setting` made the result.
        result_bytes, source_bytes: sizes of the files.
        answers: for each system the words for its answer on the source and on the result, and
            whether they are the same.
        boxes: for each system with boxes, those on the source and on the result, as lists of four
            corners (x, y) in 0..1.
        score: mean over systems, 0..1; the worst come first.
    """

    name: str
    codec: str
    setting: str
    result_bytes: int
    source_bytes: int
    source: bytes
    result: bytes
    answers: dict[str, tuple[str, str, bool]]
    boxes: dict[str, tuple[list[list[tuple[float, float]]], list[list[tuple[float, float]]]]]
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalResult:
    """All that `vizcomp eval` found.

    Attributes:
        headline: one honest sentence with the result.
        warnings: what a reader must know (sources that are JPEG, no labels, the bundled samples
            instead of the real set ...).
        data: {"name", "path", "images", "labels" (bool), "classes", "skipped",
            "source_bytes_per_image", "width", "height" (0 where they differ), "jpeg_sources"}.
        classifiers: one dict each: {"name", "kind", "unseen" (bool), "fingerprint", "reading",
            "without_answer"}; the first is the one that a codec may know.
        source_accuracy: for each classifier on the sources; None without labels.
        points: in the order of codecs, each from few bytes to many.
        bd_rate: one dict each: {"codec", "anchor", "measure" ("psnr", "ms_ssim", "agreement:NAME"
            or "accuracy:NAME"), "bd_rate" (fraction, negative = fewer bytes, or None), "overlap":
            [low, high] or None, "why" (why there is none)}.
        equal: bytes at equal accuracy, one dict each: {"measure", "level", "codec", "bytes",
            "anchor", "anchor_bytes", "saving"}; bytes are None where a curve does not reach the
            level.
        reference_points: published points to draw: {"name", "bytes", "value", "measure", "source"}.
        gallery: worst first.
        codecs: one dict each: {"name", "ours", "version", "fingerprint"}.
        versions: package to version.
        undone: codecs that failed on every image.
    """

    headline: str
    warnings: tuple[str, ...]
    data: dict[str, Any]
    classifiers: list[dict[str, Any]]
    source_accuracy: dict[str, float | None]
    points: list[EvalPoint]
    bd_rate: list[dict[str, Any]]
    equal: list[dict[str, Any]]
    reference_points: list[dict[str, Any]]
    gallery: list[EvalExample]
    codecs: list[dict[str, Any]]
    versions: dict[str, str]
    interrupted: bool = False
    undone: tuple[str, ...] = ()
