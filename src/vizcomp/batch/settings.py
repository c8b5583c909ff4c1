"""Settings of a run, and which of them decide an output."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Protocol

from vizcomp._version import __version__
from vizcomp.errors import SettingsError
from vizcomp.neural.models import MODELS
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS

MIN_QUALITY = 20.0
"""Of files that `--verify` asks for: below it a photo can become a grey sheet
(docs/decisions/0011-verified.md)."""


def _beside(default: Any) -> Any:
    """A field that does not decide what an output holds."""
    return dataclasses.field(default=default, metadata={"decides": False})


class _RunSettings:
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        return dataclasses.asdict(self)

    def what_decides(self) -> dict[str, Any]:
        """The settings on which the content of an output depends."""
        beside = {f.name for f in dataclasses.fields(self) if not f.metadata.get("decides", True)}
        return {name: value for name, value in self.to_dict().items() if name not in beside}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSettings(_RunSettings):
    """What every file of a batch shares beside the verb's own settings.

    Attributes:
        depth_model: as `depth.open_depth`.
        depth_maps: folder of ready-made depth maps by file stem, or None.
        depth_kind, depth_names: of those maps, as `depth.maps.MapFolder`.
        masks: folder of masks by file stem, or None.
        labels: COCO's file, or a folder of YOLO's or VOC's files, whose labels are written beside
            the results; or None.
        max_pixels: larger photos are refused before memory is taken.
        overwrite: replace outputs that exist; otherwise such an input is skipped.
        resume: skip what an earlier run finished with the same content and settings; redo what it
            only started.
        dry_run: do all the work, write nothing.
        keep_dates: outputs take the source's times of access and change.
        verify: vision systems by name: each photo gets the smallest file on which all of them
            answer as on the source.
        watch_with: vision systems by name whose answers on the results are reported, and decide
            nothing.
        min_quality: no file that `verify` asks for is made below this quality, 0..100; 0 lifts it.
        robust: they must answer so under several resize filters; None: those whose model file
            leaves the filter open.
        tolerance: how much their answers may differ, 0..1; see `vision.compare`.
        decoder: who decodes what systems see, one of `photos.opencv.DECODERS`.
        offline: never touch the network.
    """

    depth_model: str = "compact"
    depth_maps: str | None = None
    depth_kind: str = "auto"
    depth_names: str = ""
    masks: str | None = None
    labels: str | None = _beside(None)
    max_pixels: int = _beside(DEFAULT_MAX_PIXELS)
    overwrite: bool = _beside(False)
    resume: bool = _beside(False)
    dry_run: bool = _beside(False)
    keep_dates: bool = False
    verify: tuple[str, ...] = ()
    watch_with: tuple[str, ...] = ()
    min_quality: float = MIN_QUALITY
    robust: bool | None = None
    tolerance: float = 0.0
    decoder: str = "pillow"
    offline: bool = _beside(False)

    def __post_init__(self) -> None:
        if isinstance(self.verify, str) or isinstance(self.watch_with, str):
            raise TypeError("verify and watch_with are tuples of names")
        if both := sorted({*self.verify} & {*self.watch_with}):
            raise SettingsError(
                f"{both[0]} cannot be asked by `verify` and only be reported by `watch_with`",
                "omit one of them",
            )
        if not 0 <= self.min_quality <= 100:
            raise SettingsError(
                f"`min_quality` {self.min_quality} is out of range", "it goes from 0 to 100"
            )
        if self.min_quality != MIN_QUALITY and not self.verify:
            raise _without_verdict("min_quality")
        _check_verdicts(self.verify or self.watch_with, self.tolerance, self.robust)
        _check_resume(self.resume, self.overwrite)


class WhatIsThere(Protocol):
    """What settings say about outputs that exist."""

    @property
    def overwrite(self) -> bool: ...
    @property
    def resume(self) -> bool: ...
    @property
    def dry_run(self) -> bool: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeSettings(_RunSettings):
    """What every input of `encode` shares.

    Attributes:
        model: a bundled codec's name, or the path of one.
        iterations, bpp, search: as in `NeuralCodec.encode`; in a pack, `bpp` is of the payload.
        max_pixels: larger photos are refused before memory is taken.
        overwrite: replace outputs that exist; otherwise such an input is skipped.
        resume: skip what an earlier run finished with the same content and settings; redo what it
            only started.
        dry_run: do all the work, write nothing.
        verify: vision systems by name: each image gets the fewest iterations on which all of them
            answer as on the source, no more than the settings above allow.
        robust, tolerance, decoder: as in `BatchSettings`.
        offline: never touch the network.
    """

    model: str = "photo"
    iterations: int | None = None
    bpp: float | None = None
    search: int | None = None
    max_pixels: int = _beside(DEFAULT_MAX_PIXELS)
    overwrite: bool = _beside(False)
    resume: bool = _beside(False)
    dry_run: bool = _beside(False)
    verify: tuple[str, ...] = ()
    robust: bool | None = None
    tolerance: float = 0.0
    decoder: str = "pillow"
    offline: bool = _beside(False)

    def __post_init__(self) -> None:
        if isinstance(self.verify, str):
            raise TypeError("verify is a tuple of names")
        _check_verdicts(self.verify, self.tolerance, self.robust)
        if self.bpp is not None and not 0 < self.bpp < math.inf:
            raise SettingsError(
                f"{self.bpp} bits for each pixel are not possible",
                "use a number above 0, as `bpp` 0.5",
            )
        _check_resume(self.resume, self.overwrite)


def _check_verdicts(systems: tuple[str, ...], tolerance: float, robust: bool | None) -> None:
    """How answers are compared, and that there are some to compare."""
    if not 0 <= tolerance <= 1:
        raise SettingsError(f"`tolerance` {tolerance} is out of range", "it goes from 0 to 1")
    if tolerance and not systems:
        raise _without_verdict("tolerance")
    if robust is not None and not systems:
        raise _without_verdict("robust")


def _without_verdict(name: str) -> SettingsError:
    return SettingsError(
        f"`{name}` has no effect without `verify`", "name a vision system, or omit it"
    )


def _check_resume(resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise SettingsError("`resume` and `overwrite` contradict each other", "omit one of them")


def deciding_settings(
    verb: str, settings: EncodeSettings | DecodeSettings, **more: Any
) -> dict[str, Any]:
    """All on which the content of an output depends."""
    return {"verb": verb, **settings.what_decides(), **more, "version": __version__}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeSettings(_RunSettings):
    """What every input of `decode` shares.

    Attributes:
        model: a codec to look at first, before the bundled ones and those in the cache; a name or a
            path.
        iterations: stop after so many; None: all there are.
        max_pixels: a larger image is refused by its header.
        overwrite, resume, dry_run: as in `EncodeSettings`.
    """

    model: str | None = None
    iterations: int | None = None
    max_pixels: int = _beside(DEFAULT_MAX_PIXELS)
    overwrite: bool = _beside(False)
    resume: bool = _beside(False)
    dry_run: bool = _beside(False)

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise SettingsError(f"{self.iterations} iterations cannot be decoded", "use 1 or more")
        _check_resume(self.resume, self.overwrite)

    @property
    def models(self) -> tuple[str, ...]:
        """As `neural.find_model` wants it; the bundled ones it tries by itself."""
        return () if self.model is None or self.model in MODELS else (self.model,)
