"""Packs: many images of one model in one .vzc file. docs/vzc-format.md specifies each byte.

    pack    header, sections (class names, the model's file, blocks of 64 images in columns,
            directory), trailer

Each section has a mark, its length and its checksum, so that a pack that was cut off gives back its
whole blocks.

Everything works on bytes in memory (or mapped); the only stream is the one that `PackWriter` may be
given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from vizcomp.errors import FormatError, InputError
from vizcomp.vzc.fields import (
    DEFAULT_MAX_PIXELS,
    GET_AGAIN,
    MAX_ITERATIONS,
    Data,
    Ints,
    check_name,
    check_pixels,
)
from vizcomp.vzc.image import kind
from vizcomp.vzc.pack_blocks import (
    MAX_PACKED_PAYLOAD,
    MAX_PACKED_SIDE,
    Block,
    PackEntry,
    block_body,
)
from vizcomp.vzc.pack_layout import (
    BLOCK,
    CLASSES,
    DIRECTORY,
    IMAGES,
    MAX_CLASSES,
    MAX_COUNT,
    MAX_SECTION,
    MODEL,
    SECTION_HEAD,
    class_list,
    directory,
    pack_header,
    read_layout,
    section,
    trailer,
)


class PackWriter:
    """Writes a pack, image by image, in bounded memory where a stream is given.

    Args:
        stream: a buffered binary stream, where bytes go as blocks fill (its OSErrors pass through);
            without one the pack is kept in memory.
        model: the first four bytes of the SHA-256 of the model's canonical content; the same for
            all images.
        classes: names that labels index.
        model_file: the model's own file, so that the pack can be decoded wherever vizcomp is; b""
            to leave it out.

    Raises:
        InputError: a class name that cannot stand in a file, two that are equal, or too many.
    """

    def __init__(
        self,
        stream: BinaryIO | None = None,
        *,
        model: bytes,
        classes: Sequence[str] = (),
        model_file: bytes = b"",
    ) -> None:
        if len(model) != 4:
            raise ValueError("a model's fingerprint has 4 bytes")
        if len(classes) > MAX_CLASSES or len(set(classes)) < len(classes):
            raise InputError(
                f"a pack has at most {MAX_CLASSES} classes, all different",
                "look through the class folders",
            )
        self._classes = [check_name(name) for name in classes]
        self._stream = stream
        self._parts: list[bytes] = []
        self._waiting: list[PackEntry] = []
        self._sections: list[tuple[int, int]] = []
        self._names: set[str] = set()
        self._count = 0
        self._open = True
        self.bytes_written = 0  # so far; blocks that are not full yet do not count
        self._header = pack_header(model)
        self._write(self._header)
        if len(model_file) > MAX_SECTION:
            raise InputError("the model's file is too large for a pack", "leave it out")
        if self._classes:
            self._add_section(CLASSES, class_list(self._classes))
        if model_file:
            self._add_section(MODEL, model_file)

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        payload: Data,
        width: int,
        height: int,
        *,
        grey: bool = False,
        iterations: int = 1,
        name: str | None = None,
        label: int | None = None,
    ) -> int:
        """Adds an image and returns its index.

        Args:
            payload: all its iterations, coded together; less than 16 MiB.
            width, height: pixels, 1 to 2^24 - 1.
            grey, iterations, name, label: as in `PackEntry`.

        Raises:
            InputError: a name that cannot stand in a file or is there already, a payload or a pack
                that is too large.
            ValueError: any other value that the format cannot hold, or `finish` was called.
        """
        if not self._open:
            raise ValueError("the pack is finished")
        if not (
            1 <= width <= MAX_PACKED_SIDE
            and 1 <= height <= MAX_PACKED_SIDE
            and 1 <= iterations <= MAX_ITERATIONS
        ):
            raise ValueError(
                f"a pack cannot hold {width}x{height} pixels in {iterations} iterations"
            )
        if label is not None and not 0 <= label < len(self._classes):
            raise ValueError(f"label {label}, but {len(self._classes)} classes")
        if len(payload) > MAX_PACKED_PAYLOAD or self._count == MAX_COUNT:
            raise InputError(
                "too large for a pack: less than 16 MiB an image, 2^31 images",
                "write a file for each image",
            )
        if name is not None:
            check_name(name)
            if name in self._names:
                raise InputError(f"two images are named {name!r}", "a pack needs different names")
            self._names.add(name)
        self._waiting.append(
            PackEntry(
                payload=bytes(payload),
                width=width,
                height=height,
                grey=grey,
                iterations=iterations,
                name=name,
                label=label,
            )
        )
        self._count += 1
        if len(self._waiting) == BLOCK:
            self._flush()
        return self._count - 1

    def finish(self) -> bytes:
        """Writes what is left, the directory and the trailer. Returns the pack, or nothing where a
        stream was given."""
        if not self._open:
            raise ValueError("the pack is finished")
        self._open = False
        if self._waiting:
            self._flush()
        body = directory(self._count, self._sections)
        self._write(
            section(self._header, len(self._sections), DIRECTORY, body)
            + trailer(SECTION_HEAD + len(body))
        )
        return b"".join(self._parts)

    def _flush(self) -> None:
        images, self._waiting = self._waiting, []
        self._add_section(IMAGES, block_body(images))

    def _add_section(self, kind: int, body: bytes) -> None:
        self._write(section(self._header, len(self._sections), kind, body))
        self._sections.append((kind, len(body)))

    def _write(self, data: bytes) -> None:
        if self._stream is None:
            self._parts.append(data)
        else:
            self._stream.write(data)
        self.bytes_written += len(data)


def _closed(number: int) -> tuple[int, int]:
    raise ValueError(f"block {number} of a pack that is closed")


class PackReader:
    """Random access to the images of a pack, by index and by name.

    Opening checks header and directory; the checksum of a block is compared when one of its images
    is first asked for, so that a damaged block costs its own images only. A reader must not be used
    by several threads at once.

    Args:
        data: the whole pack: bytes, or a mapped file. It is not copied.
        max_pixels: limit of width * height of an image.
        allow_truncated: of a pack of version 2 that was cut off, give the images of its whole
            blocks; `problem` says so.

    Attributes:
        version: of the pack's format.
        model: fingerprint of the model, four bytes.
        classes: names that labels index.
        blocks: number of blocks.
        problem: one line about what is missing; "" for a whole pack.

    Raises:
        FormatError: `data` is no .vzc file, one image, or damaged.
        TruncatedError: the end mark is missing.
        UnsupportedError: another version.
    """

    _KEPT = 16  # blocks whose columns are kept

    def __init__(
        self, data: Data, *, max_pixels: int = DEFAULT_MAX_PIXELS, allow_truncated: bool = False
    ) -> None:
        view = memoryview(data)
        if kind(view) != "pack":
            raise FormatError("this .vzc file is one image, not a pack", "decode it as an image")
        self._layout = layout = read_layout(view, allow_truncated=allow_truncated)
        self.version = view[3] >> 4
        self.model, self.classes, self.problem = layout.model, layout.classes, layout.problem
        self._count, self.blocks = layout.count, len(layout.spans)
        self._view = view
        self._max_pixels = max_pixels
        self._checked = bytearray(self.blocks)
        self._kept: dict[int, Block] = {}
        self._index: tuple[Ints, Ints] | None = None
        self._unnamed: list[int] = []  # blocks that were damaged when the index was made

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PackEntry]:
        return (self.entry(i) for i in range(self._count))

    def _block(self, number: int) -> Block:
        kept = self._kept.get(number)
        if kept is not None:
            return kept
        first, n = number * BLOCK, min(BLOCK, self._count - number * BLOCK)
        what = f"block {number} (images {first} to {first + n - 1})"
        if not self._checked[number]:
            is_now, should = self._layout.checksum(number)
            if is_now != should:
                raise FormatError(
                    f"the checksum of {what} does not match", "other blocks can be read"
                )
            self._checked[number] = 1
        start, end = self._layout.spans[number]
        block = Block(self._view[start:end], n, len(self.classes), what, counted=self.version > 1)
        if len(self._kept) >= self._KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[number] = block
        return block

    def _find(self, i: int) -> tuple[Block, int]:
        if not 0 <= i < self._count:
            raise IndexError(f"image {i} of a pack of {self._count}")
        number, k = divmod(i, BLOCK)
        return self._block(number), k

    @property
    def has_model(self) -> bool:
        """Whether the model's own file is in the pack."""
        return self._layout.model_file is not None

    def model_file(self) -> bytes:
        """The model's own file, where the pack has it; b"" where it has not.

        Raises:
            FormatError: it is damaged.
        """
        if self._layout.model_file is None:
            return b""
        is_now, should = self._layout.model_checksum()
        if is_now != should:
            raise FormatError("the checksum of the model in the pack does not match", GET_AGAIN)
        start, end = self._layout.model_file
        return bytes(self._view[start:end])

    def payload(self, i: int) -> bytes:
        """The payload of image i, counted from 0. Raises FormatError where its block is damaged,
        IndexError outside the pack."""
        block, k = self._find(i)
        return bytes(block.data[block.starts[k] : block.starts[k + 1]])

    def size(self, i: int) -> tuple[int, int]:
        """Width and height of image i, pixels. Raises as `payload`, and TooLargeError beyond the
        limit."""
        block, k = self._find(i)
        width, height = int(block.widths[k]), int(block.heights[k])
        check_pixels(width, height, self._max_pixels)
        return width, height

    def name(self, i: int) -> str | None:
        """Name of image i, if it has one. Raises as `payload`."""
        block, k = self._find(i)
        return block.names()[k]

    def label(self, i: int) -> int | None:
        """Class of image i, an index into `classes`, if it has one. Raises as `payload`."""
        block, k = self._find(i)
        return int(block.labels[k]) - 1 if block.labels[k] else None

    def entry(self, i: int) -> PackEntry:
        """All of image i. Raises as `payload` and `size`."""
        block, k = self._find(i)
        width, height = self.size(i)
        return PackEntry(
            payload=self.payload(i),
            width=width,
            height=height,
            grey=bool(block.grey[k]),
            iterations=int(block.iterations[k]),
            name=self.name(i),
            label=self.label(i),
        )

    def index_of(self, name: str) -> int:
        """Index of the image with this name. The first call reads all names and keeps 16 bytes for
        each.

        Raises:
            InputError: no image has it.
            FormatError: no image of a good block has it, and some blocks are damaged; or two images
                have the same name.
        """
        hashes, images = self._index or self._make_index()
        digest = hash(name)
        for at in range(int(np.searchsorted(hashes, digest)), len(hashes)):
            if hashes[at] != digest:
                break
            if self.name(int(images[at])) == name:
                return int(images[at])
        if self._unnamed:
            raise FormatError(
                f"no image is named {name!r} where names can be read: block {self._unnamed[0]} is"
                " damaged",
                GET_AGAIN,
            )
        raise InputError(
            f"the pack has no image named {name!r}",
            "names are relative paths, as `vizcomp info` lists them",
        )

    def _make_index(self) -> tuple[Ints, Ints]:
        parts: list[Ints] = []
        unnamed = []
        for number in range(self.blocks):
            try:
                names = self._block(number).names()
            except FormatError:
                unnamed.append(number)
                continue
            pairs = [
                (hash(name), number * BLOCK + k) for k, name in enumerate(names) if name is not None
            ]
            parts.append(np.asarray(pairs, np.int64).reshape(-1, 2))
        table = np.concatenate([np.zeros((0, 2), np.int64), *parts])
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        for at in np.flatnonzero(table[1:, 0] == table[:-1, 0]):
            one, two = int(table[at, 1]), int(table[at + 1, 1])
            if self.name(one) == self.name(two):
                raise FormatError(
                    f"images {one} and {two} have the same name", "the file may be hostile"
                )
        self._unnamed = unnamed
        self._index = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
        return self._index

    def check(self) -> list[str]:
        """Reads everything and returns one line for each damaged block, and for a damaged model;
        none if all is well."""
        problems = []
        try:
            self.model_file()
        except FormatError as exc:
            problems.append(exc.message)
        for number in range(self.blocks):
            try:
                block = self._block(number)
                block.names()
                k = int(np.argmax(block.widths * block.heights))
                check_pixels(int(block.widths[k]), int(block.heights[k]), self._max_pixels)
            except FormatError as exc:
                problems.append(exc.message)
        return problems

    def close(self) -> None:
        """Lets go of `data`, so that a mapped file can be closed. Images can not be read after
        that."""
        self._kept.clear()
        self._layout = dataclasses.replace(
            self._layout, checksum=_closed, model_checksum=lambda: _closed(0)
        )  # the old one holds the view
        self._view.release()

    def __enter__(self) -> PackReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
