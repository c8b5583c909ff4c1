"""d-JPEG: a photo and a guide to an ordinary JPEG file that any decoder opens, or to a file of
another format (`formats`).

    source ── DCT coefficients (a JPEG's own, or of the pixels) ──┐
    depth, detail, mask ── importance for each 8x8 block ─────────┼── rounding and rate decisions ──
    progressive JPEG quality, strength, table ── one step for each frequency ──────┘

A JPEG has one quantisation table for the whole picture, so a block cannot have a step of its own.
What each block can have is its own price of a bit in the rate-distortion decision over its
coefficients: the nearest are rounded as the quality says, farther ones give up, or lower, the
coefficients that buy least for their bits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vizcomp.depth.kinds import Depth
from vizcomp.djpeg import guide
from vizcomp.djpeg.encoder import Array, Encoder, guides_say
from vizcomp.djpeg.formats import Picture
from vizcomp.djpeg.kinds import settings_for, text_regions
from vizcomp.djpeg.outside import without_outside
from vizcomp.djpeg.plain import Plain
from vizcomp.djpeg.readers import only_plain_webp
from vizcomp.djpeg.settings import SHAPE, DjpegSettings, Shape
from vizcomp.djpeg.source import Source
from vizcomp.djpeg.target import meet_target
from vizcomp.errors import InputError, MissingExtraError, SettingsError, UnsupportedError
from vizcomp.photos.formats import check_writable
from vizcomp.photos.frame import stored, upright
from vizcomp.photos.photo import Photo
from vizcomp.photos.resize import resized, wanted_size
from vizcomp.weights.sessions import return_memory

if TYPE_CHECKING:
    from vizcomp.djpeg.learned import LearnedGuide


LARGE = 4_000_000 * 3  # samples from which freed memory is worth some milliseconds


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A finished d-JPEG.

    Attributes:
        data: the file's bytes.
        quality: the quality that was used: the asked one, or the one that met the target size.
        importance: float32 (R, C), one value for each luma block in the file's own frame.
        notices: what a user should know.
        format: of the file: "jpeg", "webp", "avif" or "jxl".
    """

    data: bytes
    quality: float
    importance: Array
    notices: tuple[str, ...] = ()
    format: str = "jpeg"


class Ready(Protocol):
    """A photo and its guides, ready to be coded in one format at several qualities.

    Attributes:
        format: by name.
        importance: float32 (R, C), one value for each block.
        photo: as it is coded, perhaps with fewer pixels than the source.
        notices: what a user should know.
        guided: whether the guides have a say on this photo.
    """

    photo: Photo

    @property
    def format(self) -> str: ...
    @property
    def guided(self) -> bool: ...
    @property
    def importance(self) -> Array: ...
    @property
    def notices(self) -> tuple[str, ...]: ...

    def at(self, quality: float, share: float = 1.0) -> bytes:
        """The file at a quality, the guides' say `share` (0..1) of what the strength gives them."""
        ...

    def mended(self, quality: float, share: float, fine: float, places: Array) -> bytes:
        """The same, with some places kept better; as `Prepared.mended`."""
        ...

    def meet(self, target: int) -> tuple[bytes, float, tuple[str, ...]]:
        """The best file of at most `target` bytes, its quality, and notices."""
        ...


def compress(
    photo: Photo,
    settings: DjpegSettings,
    *,
    depth: Depth | Callable[[], Depth] | None = None,
    mask: Array | None = None,
    looked: Mapping[str, Array] | None = None,
) -> Compressed:
    """Compress one photo.

    Args:
        photo: from `vizcomp.load`.
        settings: what is asked.
        depth: the photo's depth as displayed; needed where the guide names depth. A call that
            guesses it is not made where that guide has no say: beside `text` on a photo without
            lettering, at the default strength.
        mask: float (h, w) in 0..1 as displayed, bright = keep; needed where the guide names mask.
        looked: for each guide "system:NAME" where that system looked, float (h, w) in 0..1 as
            displayed (`System.importance` of `vizcomp.vision.system`). A guide PATH.onnx whose map
            is here is not opened, and its factor on steps is 1.

    Raises:
        InputError: the guide needs a map that is not given, or the target size cannot be reached.
        UnsupportedError: the format cannot hold the photo.
        MissingExtraError: the library that writes the format is not there.
        SettingsError: the same; lossless, which is `lossless.rewritten`, or a side that only a
            verdict can choose.
    """
    if settings.lossless:
        raise SettingsError("lossless is not for compress", "use vizcomp djpeg --lossless")
    if settings.max_side == "auto":
        raise SettingsError(
            "`max_side` auto needs `verify`",
            "name the system whose answers must stay, or give a side in pixels",
        )
    settings = settings_for(photo, settings)
    if settings.mask_outside == "drop":
        if mask is None:
            raise InputError("`mask_outside` drop needs a mask", "give it as mask")
        photo = without_outside(photo, mask)
    return finished(prepare(photo, settings, depth=depth, mask=mask, looked=looked), settings)


def finished(ready: Sequence[Ready], settings: DjpegSettings) -> Compressed:
    """The file that the settings ask for, of several formats the smallest; errors as in `compress`.

    At a target size all are as large, and the one of the highest quality is taken.
    """
    files: list[Compressed] = []
    error: InputError | None = None
    for one in ready:
        quality = settings.quality
        notices: tuple[str, ...] = ()
        if settings.target_size is not None:
            try:
                data, quality, notices = one.meet(settings.target_size)
            except InputError as exc:
                error = exc
                continue
        elif isinstance(one, Prepared):
            data = one.encoder.encode(settings.quality, last=True)
        else:
            data = one.at(settings.quality)
        files.append(
            Compressed(data, quality, one.importance, (*one.notices, *notices), one.format)
        )
    if not files:
        assert error is not None
        raise error
    if settings.target_size is not None:
        return max(files, key=lambda each: each.quality)
    return min(files, key=lambda each: len(each.data))


def prepare(
    photo: Photo,
    settings: DjpegSettings,
    *,
    depth: Depth | Callable[[], Depth] | None = None,
    mask: Array | None = None,
    looked: Mapping[str, Array] | None = None,
) -> list[Ready]:
    """A photo and its guides, ready to be coded in each format that comes into question.

    Arguments and errors as in `compress`.
    """
    if settings.formats == ("jpeg",):
        return [Prepared(photo, settings, depth=depth, mask=mask, looked=looked)]
    # guides go by the frame that the pixels have, which "none" would turn
    upright_later = dataclasses.replace(settings, metadata="essential")
    guides = Prepared(photo, upright_later, depth=depth, mask=mask, looked=looked)
    ready: list[Ready] = []
    for name in settings.formats:
        if name == "jpeg":
            same = settings.metadata == "essential"
            ready.append(
                guides if same else Prepared(photo, settings, depth=depth, mask=mask, looked=looked)
            )
            continue
        try:
            check_writable(name)
            picture = Picture(
                guides.photo,
                guides.importance,
                settings,
                name,
                say=guides.encoder.say**0.5,
                lettering=guides.tuned_for,
            )
            if name == "webp" and only_plain_webp(settings.reading) and not picture.plain:
                raise UnsupportedError(
                    "DALI reads no WebP with an ICC profile, metadata or opacity",
                    "use `format` auto or jpeg, or `metadata` none",
                )
        except (UnsupportedError, MissingExtraError, SettingsError):
            if settings.format != "auto":
                raise
            continue
        ready.append(picture)
    return ready


class Prepared:
    """A photo and its guides, ready to be coded at several qualities; arguments and errors as in
    `compress`.

    Attributes:
        photo: the photo that is coded: made smaller where the settings say so.
        lettering: `guide.lettering` of the photo; 1 under the table `machine`, which is for such.
        tuned_for: the same as AVIF goes by it: 0 under the table `photo` too.
    """

    def __init__(
        self,
        photo: Photo,
        settings: DjpegSettings,
        *,
        depth: Depth | Callable[[], Depth] | None = None,
        mask: Array | None = None,
        looked: Mapping[str, Array] | None = None,
        shape: Shape = SHAPE,
    ) -> None:
        photo = self.photo = sized(photo, settings)
        self._settings = settings
        # before the coefficients are there: the network's memory and theirs need not be had at once
        guides = () if settings.strength == 0 else settings.guides
        if "depth" in guides and depth is None:
            hint = "use `guide` uniform or detail, or give `depth_maps`"
            raise InputError("the depth guide needs a depth map", hint)
        named = isinstance(depth, Depth) and not depth.guess
        given = "mask" in guides or ("depth" in guides and named)
        if settings.shape:
            shape = Shape.of(settings.shape, settings.table)
        by_lettering = settings.table != "photo" and shape.flat < 0
        logits = None
        if by_lettering or ("text" in guides and guides_say(settings, 1.0, given=given) > 0):
            logits = text_regions()(upright(photo.pixels, photo.orientation))
        lettering = 0.0 if logits is None else guide.lettering(logits)
        self.lettering = 1.0 if settings.table == "machine" else lettering
        self.tuned_for = 0.0 if settings.table == "photo" else self.lettering
        silent = guides_say(settings, lettering, given=given, shape=shape) == 0
        if callable(depth):
            depth = None if silent or "depth" not in guides else depth()
        looked, scales = dict(looked or {}), []
        for name in guides:
            if guide.is_learned(name) and name not in looked:
                network = learned_guide(name)
                looked[name] = network(upright(photo.pixels, photo.orientation))
                scales.append(network.scale)
        if photo.pixels.size >= LARGE:
            return_memory()  # what decoding took and the networks, a third of the peak
        self.source = Source.of(photo, settings)
        if silent:
            size = guide.grid_shape(self.source.image.height, self.source.image.width)
            self.importance = np.ones(size, np.float32)
        else:
            self.importance = _importance(self.source, logits, settings, depth, mask, looked)
        self.encoder = Encoder(
            self.source,
            self.importance,
            settings,
            lettering=lettering,
            given=given,
            shape=shape,
            learned=math.prod(scales) ** (1 / max(1, len(scales))),
        )

    @property
    def format(self) -> str:
        """What it is coded in."""
        return "jpeg"

    @property
    def guided(self) -> bool:
        """Whether the guides have a say: without one the file is that of no guide."""
        return self.encoder.say > 0 and float(self.importance.min()) < 1

    def meet(self, target: int) -> tuple[bytes, float, tuple[str, ...]]:
        """The best file of at most `target` bytes, its quality, and notices.

        Raises:
            InputError: no file is so small.
        """
        return meet_target(self.encoder, target)

    def at(self, quality: float, share: float = 1.0) -> bytes:
        """The file at a quality, the guides' price `share` (0..1) of what the strength says.

        At quality 100 without the guides, so that a JPEG source keeps every one of its integers.
        """
        return self.encoder.encode(quality, guided=quality < 100, obey=share)

    def mended(self, quality: float, share: float, fine: float, places: Array) -> bytes:
        """The file at a quality, with a finer one in some places.

        Args:
            quality, share: as in `at`, of most of the picture.
            fine: the quality in the places, where the guides have no say.
            places: float32 (h, w) in 0..1 over the photo as displayed; 1: `fine`, 0: `quality`.
        """
        height, width = self.source.image.height, self.source.image.width
        mask = guide.mask_importance(stored(places, self.source.orientation), size=(height, width))
        return self.encoder.encode(fine, obey=share, rest=quality, kept=mask)

    def plain(self) -> Plain:
        """What an ordinary encoder makes of the photo, with the same metadata and scans."""
        return Plain(self.photo, self._settings, self.source)

    @property
    def notices(self) -> tuple[str, ...]:
        return self.source.notices


def sized(photo: Photo, settings: DjpegSettings) -> Photo:
    """The photo with as many pixels as the settings say; "auto" leaves it as it is."""
    if not settings.resizes:
        return photo
    most = settings.max_side if isinstance(settings.max_side, int) else None
    height, width = wanted_size(
        *photo.pixels.shape[:2], max_side=most, short_side=settings.short_side, scale=settings.scale
    )
    return resized(photo, height, width, resample=settings.resample)


def _importance(
    source: Source,
    logits: Array | None,
    settings: DjpegSettings,
    depth: Depth | None,
    mask: Array | None,
    looked: Mapping[str, Array],
) -> Array:
    """The guides' importance maps, combined, in the file's own frame; `logits` of the text network,
    as displayed."""
    luma = source.image.components[0]
    height, width = source.image.height, source.image.width
    rows, cols = guide.grid_shape(height, width)
    if settings.strength == 0 or settings.guides == ("uniform",):
        return np.ones((rows, cols), np.float32)
    maps: list[Array] = []
    text: Array | None = None
    for name in settings.guides:
        if name == "depth":
            assert depth is not None
            nearness = stored(depth.nearness, source.orientation)
            confidence = (
                None if depth.confidence is None else stored(depth.confidence, source.orientation)
            )
            maps.append(
                guide.depth_importance(
                    nearness,
                    confidence,
                    luma.dc()[:rows, :cols],
                    size=(height, width),
                    beside_text="text" in settings.guides,
                    strength=settings.strength,
                )
            )
        elif name == "detail":
            maps.append(guide.detail_importance(luma.ac_norm()[:rows, :cols]))
        elif name == "centre":
            maps.append(guide.centre_importance((height, width)))
        elif name == "text":
            assert logits is not None
            text = guide.text_importance(
                stored(logits, source.orientation),
                luma.ac_norm()[:rows, :cols],
                size=(height, width),
            )
        elif name == "mask":
            if mask is None:
                raise InputError(
                    "the mask guide needs a mask",
                    "give `masks` with a folder that holds one for each photo",
                )
            maps.append(
                guide.mask_importance(stored(mask, source.orientation), size=(height, width))
            )
        elif name.startswith(guide.SYSTEM) or guide.is_learned(name):
            if name not in looked:
                raise InputError(
                    f"the guide {name} needs where the system looked", "give it as looked"
                )
            maps.append(
                guide.mask_importance(
                    stored(looked[name], source.orientation), size=(height, width)
                )
            )
    return guide.combine(maps, text=text)


def learned_guide(path: str) -> LearnedGuide:
    """A guide of the user's, opened once in a process, and again where the file is another one.

    Raises:
        ModelError: as `LearnedGuide`.
    """
    try:
        found = os.stat(path)
    except OSError:
        return _opened_guide(path, (0, 0))  # which says what is wrong
    return _opened_guide(path, (found.st_size, found.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _opened_guide(path: str, state: tuple[int, int]) -> LearnedGuide:
    from vizcomp.djpeg.learned import LearnedGuide

    return LearnedGuide(Path(path))
