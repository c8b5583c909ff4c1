"""One contract over all codecs that `eval` compares: d-JPEG, the recurrent codec, and the formats
that everybody has.

A codec takes images through all of its settings at once, since a recurrent codec makes all rates in
one go; it gives files as they would be on disk, and the images that are decoded from these very
files.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import io
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, features

from vizcomp._version import __version__
from vizcomp.batch.judges import guide_systems, system_by_name, system_errors
from vizcomp.depth.sources import open_depth
from vizcomp.djpeg import guide
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.formats import check_formats
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import FormatError, MissingExtraError, SettingsError, VizcompError
from vizcomp.evaluation.sweeps import Codec, Sweep
from vizcomp.files.find import InputFile
from vizcomp.jpeg.segments import SOS, markers, scan_end
from vizcomp.neural.analysis import candidate_count
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.models import MODELS
from vizcomp.neural.tiling import TILE
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.opencv import by_opencv, check_decoder
from vizcomp.photos.photo import load, load_bytes
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc
from vizcomp.vzc.packs import PackWriter

Pixels = npt.NDArray[np.uint8]

BASELINES = ("jpeg", "webp", "avif", "jxl")
CODECS = ("djpeg", *MODELS)
# Wide enough to reach from unusable to nearly lossless, on 32x32 images as on photos; JPEG XL takes
# a distance.
QUALITIES = {
    "jpeg": (5, 10, 20, 35, 50, 70, 90),
    "webp": (1, 10, 25, 50, 75, 90),
    "avif": (10, 25, 40, 55, 70, 85),
}
QUALITIES["jxl"] = (10, 25, 40, 60, 75, 90)
DJPEG_OPTIONS: dict[str, type[Any]] = {"guide": str, "strength": float, "table": str, "format": str}
DJPEG_QUALITIES = (10, 20, 35, 50, 70, 90)


def open_codec(spec: str, decoder: str = "pillow") -> Codec:
    """A codec by name: djpeg, photo, cifar, cifar-label, a model.safetensors, or a baseline.

    Options follow a colon, as `djpeg:guide=uniform,table=photo` or `cifar:search=24`. Files of
    formats that others have are decoded by `decoder`, one of `photos.opencv.DECODERS`.

    Raises:
        SettingsError: unknown, or an option that it does not have.
        MissingExtraError: a baseline whose library is not installed.
        ModelError: weights that cannot be used.
    """
    name, _, text = spec.partition(":")
    if spec.lower().endswith(".safetensors"):
        name, text = spec, ""
    options = _options(spec, text)
    if name in BASELINES:
        if options:
            raise SettingsError(f"{spec}: a baseline has no options", "omit them")
        return PillowCodec(name, decoder)
    if name == "djpeg":
        return DjpegCodec(spec, options, decoder)
    if name in MODELS or name.lower().endswith(".safetensors"):
        return Recurrent(spec, name, options)
    raise SettingsError(
        f"unknown codec {spec!r}", f"use {', '.join((*CODECS, *BASELINES))}, or a model.safetensors"
    )


def _options(spec: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        before = next(reversed(options), "")
        if guide.SYSTEM in options.get(before, "") and key not in DJPEG_OPTIONS:
            options[before] += f",{part}"  # an option of the system's name
            continue
        if not equals or not key or key in options:
            raise SettingsError(
                f"{spec}: {part!r} is no option",
                "options look like djpeg:guide=uniform,table=photo",
            )
        options[key] = value
    return options


def _one_by_one(
    sources: Sequence[Pixels],
    setting: str,
    encode: Any,
    decode: Any,
    payload: Any,
    series: str = "",
) -> Sweep:
    """A sweep by functions of one image each; what fails on one image is that image's error."""
    sizes: list[float | None] = []
    payloads: list[float | None] = []
    results: list[Pixels | None] = []
    errors = []
    encoding = decoding = 0.0
    for index, source in enumerate(sources):
        try:
            started = time.perf_counter()
            data = encode(source)
            middle = time.perf_counter()
            image = decode(data)
            decoding += time.perf_counter() - middle
            encoding += middle - started
        except (VizcompError, OSError, ValueError) as exc:
            errors.append((index, " ".join(str(exc).split())))
            data, image = None, None
        sizes.append(None if data is None else float(len(data)))
        payloads.append(None if data is None else float(payload(data)))
        results.append(image)
    return Sweep(setting, sizes, payloads, results, encoding, decoding, tuple(errors), series)


class PillowCodec:
    """JPEG, WebP, AVIF or JPEG XL by Pillow. JPEG gives two curves: plain, and optimised
    progressive."""

    ours = False
    fingerprint = ""
    native = 0

    def __init__(self, name: str, decoder: str = "pillow") -> None:
        self.name = name
        self._open = _opener(decoder, (name,))
        self.series: tuple[str, ...] = (name,) if name != "jpeg" else ("jpeg", "jpeg optimised")
        if name == "jxl":
            try:
                import pillow_jxl
            except ImportError as exc:
                raise MissingExtraError("pillow-jxl-plugin", "jxl") from exc
            self.version = f"pillow-jxl-plugin {getattr(pillow_jxl, '__version__', '')}".strip()
            return
        kind = {"jpeg": "jpg", "webp": "webp", "avif": "avif"}[name]
        if not features.check(kind):
            raise SettingsError(f"this Pillow was built without {name}", f"omit `baseline` {name}")
        library = (
            features.version("libjpeg_turbo") or features.version("jpg")
            if name == "jpeg"
            else features.version(kind)
        )
        self.version = f"Pillow {PIL.__version__}, {library}"

    def sweep(
        self, sources: Sequence[Pixels], total: int, originals: Sequence[Path | None] = ()
    ) -> Iterator[Sweep]:
        for quality in QUALITIES[self.name]:
            setting = f"quality {quality}"
            if self.name != "jpeg":
                yield _one_by_one(sources, setting, self._encoder(quality), self._open, len)
                continue
            for series, better in zip(self.series, (False, True), strict=True):

                def encode(source: Pixels, quality: int = quality, better: bool = better) -> bytes:
                    return encode_plain_jpeg(
                        source, quality=quality, optimize=better, progressive=better
                    )

                yield _one_by_one(sources, setting, encode, self._open, scan_bytes, series)

    def _encoder(self, quality: int) -> Any:
        # one thread: starting more takes longer than a small image needs, and workers share the
        # cores
        more: dict[str, Any] = {
            "webp": {"method": 4},
            "avif": {"speed": 6, "max_threads": 1},
            "jxl": {},
        }[self.name]

        def encode(source: Pixels) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(source).save(buffer, self.name.upper(), quality=quality, **more)
            return buffer.getvalue()

        return encode


def _opener(decoder: str, formats: Sequence[str]) -> Callable[[bytes], Pixels]:
    """How files of some formats become pixels."""
    check_decoder(decoder, formats)
    return _opened if decoder == "pillow" else functools.partial(by_opencv, name="the result")


def _opened(data: bytes) -> Pixels:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def scan_bytes(jpeg: bytes) -> int:
    """Bytes of a JPEG's entropy-coded segments: what is left without headers and tables (ITU-T
    T.81, B.1.1)."""
    total = 0
    with contextlib.suppress(FormatError):  # of a file that is cut off: what there is of it
        for marker in markers(jpeg):
            if marker.code == SOS:
                total += scan_end(jpeg, marker.end) - marker.end
    return total


class DjpegCodec:
    """d-JPEG over qualities, with any setting of `DjpegSettings` that is no size: guide, strength,
    table, format."""

    ours = True
    version = __version__
    native = 0

    def __init__(self, spec: str, options: dict[str, str], decoder: str = "pillow") -> None:
        self.name = spec
        self.series: tuple[str, ...] = (spec,)
        types = DJPEG_OPTIONS
        if strange := sorted(set(options) - set(types)):
            raise SettingsError(
                f"{spec}: unknown option {strange[0]}", f"djpeg has {', '.join(types)}"
            )
        try:
            values: dict[str, Any] = {key: types[key](value) for key, value in options.items()}
        except ValueError as exc:
            raise SettingsError(f"{spec}: {exc}", "strength is a number in 0..1") from exc
        self._settings = DjpegSettings(**values)
        check_formats(self._settings)
        self._open = _opener(decoder, self._settings.formats)
        if "mask" in self._settings.guides:
            raise SettingsError(
                f"{spec}: masks are not at hand in eval", "use depth, detail or uniform"
            )
        # opened before the first image: what cannot work fails at once
        self.fingerprint = " ".join(
            system_by_name(name, False).fingerprint for name in guide_systems(self._settings)
        )
        self._source = open_depth("compact", None) if "depth" in self._settings.guides else None

    def sweep(
        self, sources: Sequence[Pixels], total: int, originals: Sequence[Path | None] = ()
    ) -> Iterator[Sweep]:
        prepared: list[Any] = []
        started = time.perf_counter()
        for index, source in enumerate(sources):
            original = originals[index] if originals else None
            buffer = io.BytesIO()
            Image.fromarray(source).save(buffer, "PPM")
            photo = load_bytes(buffer.getvalue(), "image") if original is None else load(original)
            depth = (
                self._source(photo, InputFile(Path("image"), PurePath("image")))
                if self._source
                else None
            )
            prepared.append((photo, depth, self._looked(source)))
        looking = time.perf_counter() - started
        for quality in DJPEG_QUALITIES:
            settings = dataclasses.replace(self._settings, quality=float(quality))
            order = iter(prepared)

            def encode(_: Pixels, order: Any = order, settings: DjpegSettings = settings) -> bytes:
                photo, depth, looked = next(order)
                if isinstance(looked, VizcompError):
                    raise looked
                return compress(photo, settings, depth=depth, looked=looked).data

            payload = scan_bytes if self._settings.format == "jpeg" else len
            sweep = _one_by_one(sources, f"quality {quality}", encode, self._open, payload)
            yield dataclasses.replace(sweep, encode_seconds=sweep.encode_seconds + looking)

    def _looked(self, source: Pixels) -> dict[str, Any] | VizcompError:
        """Where each system of the guide looked; its error where it fails on this image."""
        looked: dict[str, Any] = {}
        try:
            for name in guide_systems(self._settings):
                with system_errors(name):
                    looked[guide.SYSTEM + name] = system_by_name(name, False).importance(source)
        except VizcompError as exc:
            return exc
        return looked


class Recurrent:
    """The recurrent codec at each number of iterations; a model of small images also in packs.

    Options: `search` as in `NeuralCodec.encode`; as `encode` has it unless given. `told` as in
    `NeuralCodec.tell`: of an encoder that is told an answer, `told=wrong` shows how much of what is
    seen in its pictures is that and no picture.
    """

    ours = True
    version = __version__

    def __init__(self, spec: str, name: str, options: dict[str, str]) -> None:
        self.name = spec if len(spec) < 60 else Path(name).name
        if strange := sorted(set(options) - {"search", "told"}):
            raise SettingsError(
                f"{spec}: unknown option {strange[0]}", "a recurrent codec has search and told"
            )
        text = options.get("search")
        if text is not None and not text.isdecimal():
            raise SettingsError(f"{spec}: search={text} is no number", "use search=24")
        self._search = None if text is None else int(text)
        candidate_count(self._search)  # a search needs torch: said before the first image
        self._codec = NeuralCodec.load(name, threads=1)
        if "told" in options:
            self._codec.tell(options["told"])
        self.fingerprint = self._codec.fingerprint.hex()
        self.native = self._codec.native
        self.series: tuple[str, ...] = (
            (self.name, f"{self.name} in a pack") if self.native else (self.name,)
        )

    def sweep(
        self, sources: Sequence[Pixels], total: int, originals: Sequence[Path | None] = ()
    ) -> Iterator[Sweep]:
        codec, count = self._codec, len(sources)
        groups: dict[tuple[int, int], list[int]] = collections.defaultdict(list)
        for index, source in enumerate(sources):
            groups[source.shape[0], source.shape[1]].append(index)
        files: list[list[bytes]] = [[b""] * count for _ in range(codec.iterations)]
        packed: list[list[bytes]] = [[b""] * count for _ in range(codec.iterations)]
        errors: list[tuple[int, str]] = []
        started = time.perf_counter()
        for (height, width), members in groups.items():
            try:
                planes = self._codes([sources[i] for i in members])
            except VizcompError as exc:
                errors += [(i, exc.message) for i in members]
                continue
            chunks = [
                coding.encode_batch(codec.context, [plane], planes[:t])
                for t, plane in enumerate(planes)
            ]
            for at, index in enumerate(members):
                for t in range(codec.iterations):
                    parts = [chunk[at] for chunk in chunks[: t + 1]]
                    files[t][index] = vzc.pack(
                        parts, model=codec.fingerprint, width=width, height=height
                    )
            if self.native:
                for t in range(codec.iterations):
                    for at, payload in enumerate(
                        coding.encode_batch(codec.context, planes[: t + 1], [])
                    ):
                        packed[t][members[at]] = payload
        encoding = (time.perf_counter() - started) / codec.iterations
        bad = {index for index, _ in errors}
        good = [[i for i in members if i not in bad] for members in groups.values()]
        for t, (images, seconds) in enumerate(self._decoded(files, list(filter(None, good)))):
            sizes = [None if i in bad else float(len(files[t][i])) for i in range(count)]
            loads = [
                None if i in bad else float(vzc.read_header(files[t][i]).payload_bytes)
                for i in range(count)
            ]
            setting = f"{t + 1} iteration{'s' if t else ''}" + (
                f", search {self._search}" if self._search is not None else ""
            )
            yield Sweep(setting, sizes, loads, images, encoding * (t + 1), seconds, tuple(errors))
            if len(self.series) > 1:
                # what stands beside the payloads in a pack of `total` such images, shared out
                beside = self._beside(
                    [p for i, p in enumerate(packed[t]) if i not in bad], t + 1, total
                )
                payloads = [None if i in bad else float(len(packed[t][i])) for i in range(count)]
                whole = [None if s is None else s + beside for s in payloads]
                yield Sweep(
                    setting,
                    whole,
                    payloads,
                    images,
                    encoding * (t + 1),
                    seconds,
                    tuple(errors),
                    self.series[-1],
                )

    def _codes(self, sources: list[Pixels]) -> list[npt.NDArray[np.uint8]]:
        codec = self._codec
        if max(sources[0].shape[:2]) <= TILE:
            return codec.codes_many(
                np.stack(sources), iterations=codec.iterations, search=self._search
            )
        each = [
            codec.codes(source, iterations=codec.iterations, search=self._search)
            for source in sources
        ]
        return [np.stack(planes) for planes in zip(*each, strict=True)]

    def _decoded(
        self, files: list[list[bytes]], groups: list[list[int]]
    ) -> Iterator[tuple[list[Pixels | None], float]]:
        """What the files of 1, 2 ... iterations decode to, and how long that takes; `groups` are
        images of one size."""
        count = len(files[0])
        if not self.native:
            for these in files:
                started = time.perf_counter()
                whole: list[Pixels | None] = [None] * count
                for i in itertools.chain(*groups):
                    whole[i] = self._codec.decode(these[i]).image
                yield whole, time.perf_counter() - started
            return
        images: list[list[Pixels | None]] = [[None] * count for _ in files]
        started = time.perf_counter()
        for members in groups:
            for t, images_now in enumerate(
                self._prefixes([[these[i] for i in members] for these in files])
            ):
                for i, image in zip(members, images_now, strict=True):
                    images[t][i] = image
        seconds = time.perf_counter() - started
        for t, whole in enumerate(images, 1):
            yield whole, seconds * t / len(files)  # each iteration takes as long as the next

    def _prefixes(self, files: list[list[bytes]]) -> list[list[Pixels]]:
        """What files of one size decode to, those of 1, 2 ... iterations: for each of these N
        images, uint8 (H, W, 3).

        A file of more iterations begins with the chunks of the one before, so their bits and the
        decoder's state serve again.
        """
        stored = [[vzc.unpack(data) for data in these] for these in files]
        for t, these in enumerate(stored, 1):
            if any(a.chunks != b.chunks[:t] for a, b in zip(these, stored[-1], strict=True)):
                raise FormatError("a file of more iterations does not begin as one of fewer does")
        return self._codec.decode_prefixes(stored[-1], len(files))

    def _beside(self, payloads: list[bytes], iterations: int, total: int) -> float:
        writer = PackWriter(model=self._codec.fingerprint)
        many = (
            [payloads[i % len(payloads)] for i in range(max(total, len(payloads)))]
            if payloads
            else []
        )
        for payload in many:
            writer.add(payload, self.native, self.native, iterations=iterations)
        return (len(writer.finish()) - sum(map(len, many))) / len(many) if many else 0.0
