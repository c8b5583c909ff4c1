"""What a .vzc file holds, read without any network: header, iterations, sizes, checks. torch is
never imported here."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vizcomp.errors import FormatError, InputError, ModelError
from vizcomp.files.place import printable
from vizcomp.files.read import map_file
from vizcomp.metrics import bits_per_pixel
from vizcomp.neural.models import MODELS, saved_fingerprint
from vizcomp.vzc import image as vzc
from vizcomp.vzc.fields import (
    MAX_SIDE,
    TAG_ALPHA,
    TAG_NAME,
    VERSION,
    Data,
    checksum_size,
    short_checksum,
)
from vizcomp.vzc.pack_layout import BLOCK
from vizcomp.vzc.packs import PackReader
from vizcomp.weights import cache, table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Iteration:
    """One iteration of a file of one image.

    Attributes:
        payload_bytes: of its payload; `bytes` with its checksum.
        total_bytes: of the file up to here, header included.
        bpp: bits for each pixel of the file up to here.
        check: "ok", "damaged" (its checksum does not match) or "missing" (the file ends before it
            does).
    """

    payload_bytes: int
    bytes: int
    total_bytes: int
    bpp: float
    check: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageContents:
    """A file of one image.

    Attributes:
        model: fingerprint of the model that wrote it, in hexadecimal.
        model_found: name or path of that model on this machine, None where it is not here.
        width, height: pixels.
        grey: whether the source was greyscale.
        metadata: what items the header has, with their bytes.
        header_bytes: of the header with its checksum, metadata included.
        file_bytes: of the file as it is on disk.
        expected_bytes: that its header says it has.
        overhead_bytes: of the expected bytes, those that are not payload.
        bpp: bits of the expected file for each pixel.
        problems: one line for each thing that is wrong; empty where all is well.
    """

    path: str
    kind: str = "image"
    version: int
    model: str
    model_found: str | None
    width: int
    height: int
    grey: bool
    metadata: dict[str, int]
    header_bytes: int
    file_bytes: int
    expected_bytes: int
    overhead_bytes: int
    bpp: float
    iterations: tuple[Iteration, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a dict of JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackContents:
    """A pack. What is counted is what its readable blocks hold.

    Attributes:
        images: that the pack holds; `readable` of them in good blocks.
        classes: name of each class to the number of its images; `unlabelled` images have none.
        named: images with a name.
        sizes: how many images there are of each size, as "32x32".
        iterations: how many images there are of each number of iterations.
        payload_bytes: of all images; `bytes_per_image` is of the whole file.
        bpp: bits of the whole file for each pixel; None where a block is damaged or there is no
            image.
        problems: one line for each damaged block. The other attributes as in `ImageContents`.
    """

    path: str
    kind: str = "pack"
    version: int
    model: str
    model_found: str | None
    images: int
    readable: int
    grey: int
    named: int
    classes: dict[str, int]
    unlabelled: int
    sizes: dict[str, int]
    iterations: dict[str, int]
    file_bytes: int
    payload_bytes: int
    bytes_per_image: float | None
    bpp: float | None
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a dict of JSON types."""
        return dataclasses.asdict(self)


def contents(path: Path, *, models: Sequence[Path] = ()) -> ImageContents | PackContents:
    """What a .vzc file or pack holds; every checksum is compared.

    Args:
        path: the file.
        models: codecs to look at besides those that are bundled or in the cache.

    Raises:
        InputError: it cannot be read.
        FormatError: it is no .vzc file, or its header (of a pack of version 1 its footer) is
            damaged. Damage further on is no error but among the problems.
    """
    path = Path(path)
    name = printable(path)
    if path.is_dir():
        inside = next(iter(sorted(path.rglob("*.vzc"))), None)
        raise InputError(
            f"{name} is a folder",
            "name one file" + (f", such as {printable(inside)}" if inside else ", NAME.vzc"),
        )
    try:
        data = map_file(path, check=lambda start, _: vzc.kind(start))
        if vzc.kind(data) == "pack":
            with PackReader(data, max_pixels=_NO_LIMIT, allow_truncated=True) as reader:
                return _of_pack(name, len(data), reader, models)
        return _of_image(name, data, vzc.read_header(data, max_pixels=_NO_LIMIT), models)
    except FormatError as exc:
        raise type(exc)(f"{name}: {exc.message}", exc.hint) from exc


def _of_image(name: str, data: Data, header: vzc.Header, models: Sequence[Path]) -> ImageContents:
    pixels = header.width * header.height
    iterations: list[Iteration] = []
    problems: list[str] = []
    before = bytes(
        data[header.header_bytes - checksum_size(header.header_bytes - 2) : header.header_bytes]
    )
    for number, (start, length) in enumerate(zip(header.offsets, header.lengths, strict=True), 1):
        end = start + length + checksum_size(length)
        stored = bytes(data[start + length : end])
        check = "ok"
        if end > len(data):
            check = "missing"
        elif stored != short_checksum(before, data[start : start + length]):
            check = "damaged"
            problems.append(f"the checksum of iteration {number} does not match")
        before = stored
        iterations.append(
            Iteration(
                payload_bytes=length,
                bytes=end - start,
                total_bytes=end,
                bpp=bits_per_pixel(end, pixels),
                check=check,
            )
        )
    if len(data) < header.file_bytes:
        whole = sum(each.check != "missing" for each in iterations)
        problems.append(
            f"cut off: {whole} of {header.iterations} iterations, {header.file_bytes - len(data)}"
            " bytes are missing"
        )
    elif len(data) > header.file_bytes:
        problems.append(f"{len(data) - header.file_bytes} bytes follow the last iteration")
    return ImageContents(
        path=name,
        version=VERSION,
        model=header.model.hex(),
        model_found=_model_here(header.model, models),
        width=header.width,
        height=header.height,
        grey=header.grey,
        metadata={_TAGS.get(tag, f"item {tag}"): len(content) for tag, content in header.metadata},
        header_bytes=header.header_bytes,
        file_bytes=len(data),
        expected_bytes=header.file_bytes,
        overhead_bytes=header.overhead,
        bpp=bits_per_pixel(header.file_bytes, pixels),
        iterations=tuple(iterations),
        problems=tuple(problems),
    )


_NO_LIMIT = MAX_SIDE**2  # no memory is taken for pixels here
_TAGS = {TAG_ALPHA: "alpha", TAG_NAME: "name"}


def _of_pack(name: str, size: int, reader: PackReader, models: Sequence[Path]) -> PackContents:
    problems = [reader.problem] if reader.problem else []
    problems += reader.check()
    sizes: collections.Counter[str] = collections.Counter()
    iterations: collections.Counter[str] = collections.Counter()
    labels: collections.Counter[int | None] = collections.Counter()
    named = grey = payload = pixels = 0
    for first in range(0, len(reader), BLOCK):
        try:
            entries = [reader.entry(i) for i in range(first, min(first + BLOCK, len(reader)))]
        except FormatError:
            continue  # among the problems
        for entry in entries:
            sizes[f"{entry.width}x{entry.height}"] += 1
            iterations[str(entry.iterations)] += 1
            labels[entry.label] += 1
            named += entry.name is not None
            grey += entry.grey
            payload += len(entry.payload)
            pixels += entry.width * entry.height
    readable = sum(sizes.values())
    whole = readable == len(reader) > 0 and not reader.problem
    return PackContents(
        path=name,
        version=reader.version,
        model=reader.model.hex(),
        model_found=_model_here(reader.model, models)
        or ("the pack itself" if reader.has_model else None),
        images=len(reader),
        readable=readable,
        grey=grey,
        named=named,
        classes={each: labels[i] for i, each in enumerate(reader.classes)},
        unlabelled=labels[None],
        sizes=dict(sizes.most_common()),
        iterations=dict(iterations.most_common()),
        file_bytes=size,
        payload_bytes=payload,
        bytes_per_image=size / len(reader) if len(reader) else None,
        bpp=bits_per_pixel(size, pixels) if whole else None,
        problems=tuple(problems),
    )


def _model_here(fingerprint: bytes, models: Sequence[Path]) -> str | None:
    """Name or path of the codec with a fingerprint. A given file that is none is an error; another
    is passed over."""
    for path in models:
        if saved_fingerprint(path) == fingerprint:
            return printable(path)
    for name in MODELS:
        with contextlib.suppress(ModelError):
            if saved_fingerprint(table.bundled_path(f"{name}.safetensors")) == fingerprint:
                return name
    for path in sorted(cache.model_folder().glob("*.safetensors")):
        with contextlib.suppress(ModelError):
            if saved_fingerprint(path) == fingerprint:
                return printable(path)
    return None
