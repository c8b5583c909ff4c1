"""The records that the verbs return and that reports are made of."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints


@functools.cache
def _fields(
    record: type[Any],
) -> dict[str, tuple[frozenset[type], tuple[str, ...], tuple[type, ...]]]:
    """For each field of a record the types that JSON has for it, the words where it is one of a
    few, and the types of a dict's values."""
    fields: dict[str, tuple[frozenset[type], tuple[str, ...], tuple[type, ...]]] = {}
    for name, hint in get_type_hints(record).items():
        parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        origins = [get_origin(part) or part for part in parts]
        own = {
            list if origin is tuple else str if origin is Literal else origin for origin in origins
        }
        words = tuple(
            word
            for part, origin in zip(parts, origins, strict=True)
            if origin is Literal
            for word in get_args(part)
        )
        inner = tuple(
            one
            for part, origin in zip(parts, origins, strict=True)
            if origin is dict
            for one in ((str,) if get_args(part)[1] is str else (int, float))
        )
        fields[name] = frozenset(own | ({int} if float in own else set())), words, inner
    return fields


Status = Literal["ok", "kept", "skipped", "failed"]
VerifyState = Literal["verified", "nothing", "not_reached"]
CodecStatus = Literal["ok", "partial", "skipped", "failed"]


class InputRecord:
    """What the records of all commands can do. They are dataclasses, which choose the order of
    their fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    notices: tuple[str, ...]

    @property
    def work(self) -> int:
        """What speeds count of it: pixels of a photo, coded images of a pack."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The record as a dict of JSON types, in the order of its fields."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, value in values.items():
            if isinstance(value, dict):
                values[name] = dict(value)
        values["notices"] = list(self.notices)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            TypeError: an unknown key, one without a default is missing, or a value of another type.
        """
        fields = _fields(cls)  # type: ignore[arg-type]  # a class is hashable, which mypy doubts of type[Self]
        for name, value in values.items():
            allowed, words, inner = fields.get(name, ((), (), ()))
            wrong = type(value) not in allowed or (
                words and value is not None and value not in words
            )
            if isinstance(value, dict):  # by the names of systems
                wrong = wrong or not all(isinstance(one, inner) for one in value.values())
            elif isinstance(value, list):
                wrong = wrong or not all(isinstance(one, str) for one in value)
            if wrong:
                raise TypeError(f"{name} of a record cannot be {value!r}")
        return cls(**{**values, "notices": tuple(values.get("notices", ()))})

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """A record from the values of all of its fields: a long run reads each several times, and
        `__init__` takes its time."""
        record = object.__new__(cls)
        record.__dict__.update(values)
        return record


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileRecord(InputRecord):
    """What became of one input of `vizcomp djpeg`: one row of the report.

    Attributes:
        input: path of the input as the user gave it or as it was found.
        output: path of the output; None where nothing was written.
        status: "ok" (written), "kept" (the source's own bytes were kept), "skipped" (not done on
            purpose), "failed" (see `error`).
        error: one line that says what is wrong; None unless failed or skipped.
        width, height: stored size in pixels (before an EXIF rotation); 0 where the input could not
            be read.
        output_width, output_height: the same of the output; 0 without one.
        orientation: EXIF orientation of the input, 1..8.
        source_bytes, output_bytes: sizes of the files as they are on disk.
        plain_jpeg_bytes: size of an ordinary JPEG of the same photo, of as many pixels as the
            output, at the same quality (Pillow, 4:2:0, no optimisation). Under --lossless: of the
            same coefficients, with the typical Huffman tables.
        optimised_jpeg_bytes: the same with optimised Huffman tables and progressive scans.
        jpeg_psnr, jpeg_ms_ssim: of that plain JPEG; None where they were not measured
            (`rivals.SAMPLE`).
        equal_bytes_quality, equal_bytes_psnr, equal_bytes_ms_ssim: of the best optimised plain JPEG
            of at most our bytes; None where it was not searched, or where no quality is so small.
        format: of the output: "jpeg", "webp", "avif" or "jxl", or "source" where a source of
            another format than was asked for was kept; None without an output.
        rival_bytes, rival_quality: of the smallest optimised plain JPEG that was found under the
            same verdict; the source's bytes and None where it is a JPEG and none passed, since it
            would be kept; None where it was not searched, or without any.
        near: under the depth guide, PSNR in dB of the nearest third of the photo (`psnr`) and of
            the rest (`rest_psnr`), and those of the file without a guide that has the same bytes
            (`uniform_psnr`, `uniform_rest_psnr`), interpolated of two files about as large; the map
            that guided says what is near. None where it was not measured (`near.MOST_PHOTOS`).
        psnr: dB over RGB, output against source (made as small as the output); None where no output
            was written or where they are identical.
        ms_ssim: multi-scale SSIM of luma in 0..1; None where no output was written.
        seconds: time of the whole work on this file.
        quality: the quality that was used in the end (a target size chooses it).
        notices: what a user should know about this file (alpha flattened, first frame taken ...).
        verified: whether all systems of --verify answer the same on the output as on the source,
            and one of them at least found something there; None if none was asked.
        verify_state: "verified"; "nothing": they find nothing on the source, so there was nothing
            to verify; "not_reached": one answers otherwise on the output; None if none was asked.
        verify_score: by system, how alike the two answers are, 0..1; None if none was asked.
        verify_trials: files that were made and judged on the way.
        watch_score, watch_same: by system of --watch-with, how alike its answers are, and whether
            they are the same; those that find nothing on the source are left out; None if none was
            asked.
        source_answers: by system of both, what it answers on the source, as `vision.gist` has it;
            None if none was asked.
    """

    input: str
    output: str | None
    status: Status
    error: str | None = None
    width: int = 0
    height: int = 0
    source_bytes: int = 0
    output_bytes: int = 0
    plain_jpeg_bytes: int = 0
    psnr: float | None = None
    ms_ssim: float | None = None
    seconds: float = 0.0
    quality: float | None = None
    notices: tuple[str, ...] = ()
    verified: bool | None = None
    verify_state: VerifyState | None = None
    verify_score: dict[str, float] | None = None
    verify_trials: int = 0
    watch_score: dict[str, float] | None = None
    watch_same: dict[str, bool] | None = None
    optimised_jpeg_bytes: int = 0
    jpeg_psnr: float | None = None
    jpeg_ms_ssim: float | None = None
    equal_bytes_quality: int | None = None
    equal_bytes_psnr: float | None = None
    equal_bytes_ms_ssim: float | None = None
    rival_bytes: int | None = None
    rival_quality: int | None = None
    format: str | None = None
    output_width: int = 0
    output_height: int = 0
    orientation: int = 1
    near: dict[str, float] | None = None
    source_answers: dict[str, str] | None = None

    @property
    def work(self) -> int:
        """Its pixels, where it has a result."""
        return self.width * self.height if self.status in ("ok", "kept") else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over a batch; savings are fractions (0.4 = 40% fewer bytes), over the files that were
    not failed or skipped.

    Attributes:
        optimised_jpeg_bytes: of plain JPEG as `FileRecord` has it.
        equal_bytes: of the photos where plain JPEG was searched at our bytes: `photos`, means of
            `psnr` and `ms_ssim` and of `jpeg_psnr` and `jpeg_ms_ssim` (that JPEG's), and on how
            many it is better: `jpeg_better_psnr`, `jpeg_better_ms_ssim`.
        verified, nothing_to_verify, not_reached: photos in each of the states of
        `FileRecord.verify_state`.
        labels: of --labels, their `kind`, and photos whose labels were `written`, that have none
            (`missing`), whose labels were `refused`, or that were skipped or failed
            (`passed_over`); None where none were asked for.
        rival: under --verify, optimised plain JPEG under the same verdict on a sample of at most
            `rivals.SAMPLE` photos: `codec`, `photos`, its `bytes`, `our_bytes`, and `saving` with
            its 95% `interval` (bootstrap over photos). Photos that are no JPEG and on which none of
            its files passed are left out. None where it was not searched.
        near: of the photos with `FileRecord.near`: `photos`, means of its `psnr` and
            `uniform_psnr`, their difference `gain` with its 95% `interval` (bootstrap over photos),
            and `rest_gain`, the same outside the nearest third. None without any.
        watched: by system of --watch-with, the photos on which it finds something, and on how many
            its answer is the same.
        formats: how many outputs there are of each `FileRecord.format`.
        one_answer: by system that gave one answer for all photos, on three different ones at least,
            that `answer` and the number of `photos`: that it gives it for the results too proves
            nothing.
        resumed: photos that an earlier run finished, under --resume: they are in all sums but
            `seconds` and `megapixels_per_second`, which are of this run.
    """

    files: int
    failed: int
    skipped: int
    source_bytes: int
    output_bytes: int
    plain_jpeg_bytes: int
    saving_vs_source: float
    saving_vs_plain_jpeg: float
    seconds: float
    megapixels_per_second: float
    optimised_jpeg_bytes: int = 0
    saving_vs_optimised_jpeg: float = 0.0
    equal_bytes: dict[str, float] | None = None
    verified: int = 0
    nothing_to_verify: int = 0
    not_reached: int = 0
    rival: dict[str, Any] | None = None
    watched: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    formats: dict[str, int] = dataclasses.field(default_factory=dict)
    labels: dict[str, Any] | None = None
    near: dict[str, Any] | None = None
    one_answer: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    resumed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The totals as a dict of JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryItem:
    """One photo of the report's gallery. Images are ready-made JPEG bytes of one size, upright."""

    name: str
    caption: str
    source: bytes
    result: bytes
    depth: bytes | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthRecord(InputRecord):
    """What became of one input of `vizcomp depth`.

    Attributes:
        confidence: the network's mean confidence in 0..1, or None where it has none.
        width, height: size as displayed, in pixels. The other fields as in `FileRecord`.
    """

    input: str
    output: str | None
    status: Status
    error: str | None = None
    width: int = 0
    height: int = 0
    confidence: float | None = None
    seconds: float = 0.0
    notices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecRecord(InputRecord):
    """What became of one input of `vizcomp encode` or `vizcomp decode`.

    Attributes:
        input: path of the input as the user gave it or as it was found.
        output: path of the file, or the folder of a pack's images, that was written; None where
            nothing was.
        status: "ok", "partial" (a damaged or cut off input of which a part was decoded: see
            `error`), "skipped" (not done on purpose) or "failed".
        error: one line that says what is wrong; None unless partial, skipped or failed.
        error_type: name of the error's class, as in `vizcomp.errors`; None without one.
        width, height: pixels as displayed; 0 where unknown, or where the images of a pack differ.
        images: how many were coded: 1, or the images of a pack.
        pixels: of all of them together.
        source_bytes, output_bytes: sizes of the files as they are on disk; of an image that went
            into a pack, its payload.
        iterations: that the file holds, or that were decoded; 0 where the images of a pack differ.
        bpp: bits of the .vzc file (of the payload in a pack) for each pixel; None where nothing was
            coded.
        seconds: time of the whole work on this input; images that went through together share
            theirs.
        notices: what a user should know about this file (alpha flattened, first frame taken ...).
        verified, verify_state, verify_score, verify_trials, source_answers: as in `FileRecord`.
    """

    input: str
    output: str | None
    status: CodecStatus
    error: str | None = None
    error_type: str | None = None
    width: int = 0
    height: int = 0
    images: int = 1
    pixels: int = 0
    source_bytes: int = 0
    output_bytes: int = 0
    iterations: int = 0
    bpp: float | None = None
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
    verified: bool | None = None
    verify_state: VerifyState | None = None
    verify_score: dict[str, float] | None = None
    verify_trials: int = 0
    source_answers: dict[str, str] | None = None

    @property
    def work(self) -> int:
        """How many images were coded of it."""
        return self.images


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecTotals:
    """Sums over a batch of `encode` or `decode`; sizes, pixels and bits count what was coded,
    skipped and failed inputs left out.

    Attributes:
        files, partial, skipped, failed: numbers of inputs; `files` counts them all.
        images: images that were coded; a pack holds many.
        output_bytes: of a pack, the whole file.
        bpp: bits of the .vzc files for each pixel; None without pixels.
        images_per_second: images of this run over `seconds`, the time of the whole run.
        verified, nothing_to_verify, not_reached, one_answer, resumed: as in `Totals`.
    """

    files: int
    partial: int
    skipped: int
    failed: int
    images: int
    pixels: int
    source_bytes: int
    output_bytes: int
    bpp: float | None
    seconds: float
    images_per_second: float
    verified: int = 0
    nothing_to_verify: int = 0
    not_reached: int = 0
    one_answer: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    resumed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The totals as a dict of JSON types."""
        return dataclasses.asdict(self)
