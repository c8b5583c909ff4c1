"""Frozen dataclasses that the verbs return, and that reports are made of. All fields are JSON-safe."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Status = Literal["ok", "kept", "skipped", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What became of one input of `vizcomp djpeg`: one row of the report.

    Attributes:
        input: path of the input as the user gave it or as it was found.
        output: path of the output; None where nothing was written.
        status: "ok" (written), "kept" (the source's own bytes were kept), "skipped" (not done on purpose),
            "failed" (see `error`).
        error: one line that says what is wrong; None unless failed or skipped.
        width, height: stored size in pixels (before an EXIF rotation); 0 where the input could not be read.
        source_bytes, output_bytes: sizes of the files as they lie on disk.
        plain_jpeg_bytes: size of an ordinary JPEG of the same photo at the same quality (Pillow, 4:2:0, no
            optimisation).
        psnr: dB over RGB, output against source; None where no output was written or where they are identical.
        ms_ssim: multi-scale SSIM of luma in 0..1; None where no output was written.
        seconds: time of the whole work on this file.
        quality: the quality that was used in the end (a target size chooses it).
        notices: what a user should know about this file (alpha flattened, first frame taken ...).
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

    def to_dict(self) -> dict[str, Any]:
        """The record as a dict of JSON types."""
        return {**dataclasses.asdict(self), "notices": list(self.notices)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FileRecord:
        """The inverse of `to_dict`; unknown keys are an error."""
        return cls(**{**values, "notices": tuple(values.get("notices", ()))})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over a batch; savings are fractions (0.4 = 40% fewer bytes), over the files that were not failed or skipped."""

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
class DepthRecord:
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

    def to_dict(self) -> dict[str, Any]:
        """The record as a dict of JSON types."""
        return {**dataclasses.asdict(self), "notices": list(self.notices)}
