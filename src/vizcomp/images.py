"""Photos on disk: found, opened safely, turned, flattened to 8-bit RGB or grey, named, and written whole or not at all.

This is the one file of the package that opens photos and writes results. A photo is kept in its *stored frame*: the
EXIF orientation is a number beside the pixels, and `upright` applies it where somebody looks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fnmatch
import functools
import importlib
import io
import itertools
import math
import mmap
import os
import platform
import re
import secrets
import stat
import struct
import threading
import unicodedata
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vizcomp import storage
from vizcomp.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    OutputError,
    TooLargeError,
    TruncatedError,
    UnsupportedError,
)
from vizcomp.jpeg.segments import DAC, DHT, EXIF, SOS, exif_directory, exif_orientation, markers
from vizcomp.storage import AnyPath, StorePath

DEFAULT_MAX_PIXELS = 200_000_000

EXTENSIONS: frozenset[str] = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs", ".heic", ".heif", ".hif"),
        *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""Lower-case suffixes that count as photos when a folder is walked."""

Pixels = npt.NDArray[np.uint8]
Report = Callable[[InputError], None]

# Only these formats are ever tried, each by its magic number: a file cannot choose another of Pillow's parsers by its content.
_PLUGINS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "AVIF": "AvifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "PPM": "PpmImagePlugin",
}
_READABLE = "readable are JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP, GIF and PPM"
_HEAD_BYTES = 4096
_STORED_WHOLE = 1 << 26  # bytes: below, looking at an object's head first costs more than it saves
_STRIP_PIXELS = 1 << 18
_MAX_JPEG_SIDE = 65_535
_open_lock = threading.RLock()


# --- names ----------------------------------------------------------------------------------------------------------


def printable(path: str | os.PathLike[str] | StorePath) -> str:
    """A path as text that is safe to print: one line, valid UTF-8, no control or text-direction characters.

    Bytes that are no UTF-8 show as `\\xNN`, control characters as their Python escapes; any other name is unchanged.
    """
    text = path if isinstance(path, str) else str(path)
    if text.isprintable():
        return text
    return "".join(_printable_character(c) for c in text)


def _printable_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape carried through
        return f"\\x{code - 0xDC00:02x}"
    # Joiners and variation selectors belong to emoji and many scripts; what reorders a line does not belong in a report.
    reorders = code in (0x200E, 0x200F, 0x061C) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    if reorders or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


@dataclasses.dataclass(frozen=True)
class InputFile:
    """One photo to read.

    Attributes:
        path: as it is to be opened.
        relative: path below the folder it was found under, file name included; the name alone for a single file.
        shown: `path` for people and reports, safe to print; made from `path` where it is not given.
    """

    path: AnyPath
    relative: PurePath
    shown: str = ""

    def __post_init__(self) -> None:
        if not self.shown:
            object.__setattr__(self, "shown", printable(self.path))


# --- finding --------------------------------------------------------------------------------------------------------


def find_inputs(
    inputs: Sequence[str | Path],
    *,
    exclude: AnyPath | None = None,
    report: Report | None = None,
    extensions: frozenset[str] = EXTENSIONS,
    what: str = "photo",
) -> Iterator[InputFile]:
    """The photos (or other files) that files, folders and glob patterns name, each once, in the order given.

    A folder is walked recursively: its files by name, then its sub-folders by name; hidden ones are left out, linked
    folders are followed once, and only regular files with a suffix of `extensions` count. A file that is named is taken
    whatever its suffix. A name that exists is never read as a pattern. In a pattern, `**` stands for any number of
    folders. The same file by two ways (a link, a relative path, its folder) comes once, by the first of them.

    Args:
        inputs: files, folders or patterns.
        exclude: a folder (of outputs) that is not walked where it lies below an input.
        report: is told of folders that cannot be read and links that lead nowhere; they are passed over.
        extensions: lower-case suffixes that count when a folder is walked.
        what: what such a file is called in messages.

    Raises:
        InputError: at once, before the first photo: an input is missing, is neither file nor folder, a pattern matches
            nothing, or there is no photo at all.
    """
    if not inputs:
        raise InputError("no input given", f"name {what}s, folders or patterns")
    finder = _Finder(exclude, report, extensions)
    sources = [finder.source(os.fspath(item)) for item in inputs]
    found = itertools.chain.from_iterable(sources)
    first = next(found, None)
    if first is None:
        named = ", ".join(printable(item) for item in inputs[:3]) + (" ..." if len(inputs) > 3 else "")
        readable = _READABLE if extensions is EXTENSIONS else f"folders are searched for {' and '.join(sorted(extensions))}"
        raise InputError(f"no {what} found in {named}", f"{readable}; other suffixes are taken where the file itself is named")
    return itertools.chain([first], found)


def count_inputs(inputs: Sequence[str | Path], *, exclude: AnyPath | None = None, extensions: frozenset[str] = EXTENSIONS) -> int:
    """About how many files `find_inputs` will give, found without remembering them: one by two ways counts twice.

    Raises:
        InputError: as `find_inputs`.
    """
    finder = _Finder(exclude, None, extensions, remember=False)
    return sum(1 for item in inputs for _ in finder.source(os.fspath(item)))


class _Finder:
    """One search: what was seen already is remembered by 16 bytes a file, not by its path."""

    def __init__(
        self, exclude: AnyPath | None, report: Report | None, extensions: frozenset[str], *, remember: bool = True
    ) -> None:
        self._remember = remember
        self._extensions = extensions
        self._excluded = exclude
        self._exclude = os.path.realpath(exclude) if isinstance(exclude, Path) else None
        self._report = report
        self._seen: set[bytes] = set()

    def source(self, item: str) -> Iterator[InputFile]:
        if "\0" in item:
            raise InputError(f"{printable(item)} is no file name", "it holds a NUL character")
        if storage.is_url(item):
            place = storage.parse(item)
            if isinstance(place, StorePath):
                return self._stored(place)
            item = str(place)
        try:
            mode = os.stat(item).st_mode
        except (FileNotFoundError, NotADirectoryError) as exc:
            if any(c in item for c in "*?["):
                return self._pattern(item)
            hint = "it is a link that leads nowhere" if os.path.islink(item) else "check the path"
            raise InputError(f"{printable(item) or 'the empty name'} does not exist", hint) from exc
        except OSError as exc:
            raise InputError(f"{printable(item)} cannot be opened: {_cause(exc)}", "check the path and its permissions") from exc
        path = Path(item)
        if stat.S_ISDIR(mode):
            try:
                os.scandir(item).close()
            except OSError as exc:
                raise InputError(f"the folder {printable(item)} cannot be read: {_cause(exc)}", "check its permissions") from exc
            return self._walk(item, PurePath(), set())
        if not stat.S_ISREG(mode):
            raise InputError(f"{printable(item)} is a {_kind(mode)}, not a file", "name a file, a folder or a pattern")
        return self._file(path, PurePath(path.name), os.path.realpath(item))

    def _stored(self, place: StorePath) -> Iterator[InputFile]:
        """An object, the objects below a prefix, or those that a pattern matches."""
        shown = printable(place)
        try:
            if place.key and not place.key.endswith("/") and place.exists():
                return self._file(place, PurePosixPath(place.name), str(place))
            if any(c in place.key for c in "*?["):
                spelled = re.search(r"\.\w+$", place.name) is not None
                found = ((p, r) for p, r in storage.matches(place) if spelled or p.suffix.lower() in self._extensions)
            else:
                exclude = self._excluded if isinstance(self._excluded, StorePath) else None
                found = ((p, r) for p, r in storage.walk(place, exclude) if p.suffix.lower() in self._extensions)
                if not place.is_dir():
                    raise InputError(f"{shown} does not exist", "check the bucket and the key")
        except OSError as exc:
            raise _store_error(shown, exc) from exc
        return self._listed(found, shown)

    def _listed(self, found: Iterator[tuple[StorePath, PurePosixPath]], shown: str) -> Iterator[InputFile]:
        try:
            for place, relative in found:
                yield from self._file(place, relative, str(place))
        except OSError as exc:
            raise _store_error(shown, exc) from exc

    def _file(self, path: AnyPath, relative: PurePath, real: str) -> Iterator[InputFile]:
        if not self._remember:
            yield InputFile(path, relative)
            return
        key = blake2b(os.fsencode(real), digest_size=16).digest()
        if key not in self._seen:
            self._seen.add(key)
            yield InputFile(path, relative)

    def _walk(self, folder: str, relative: PurePath, above: set[str]) -> Iterator[InputFile]:
        """Photos below `folder`; `above` holds the real paths of the folders entered already (links may form loops)."""
        stack = [(folder, relative)]
        while stack:
            here, below = stack.pop()
            real = os.path.realpath(here)
            if real in above:
                continue
            above.add(real)
            files, folders = self._listing(here)
            for name in files:
                if os.path.splitext(name)[1].lower() in self._extensions:
                    path = os.path.join(here, name)
                    target = os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)
                    yield from self._file(Path(path), below / name, target)
            stack.extend((os.path.join(here, name), below / name) for name in reversed(folders))

    def _listing(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the regular files and of the folders in a folder, sorted; not hidden, not excluded."""
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(folder or ".") as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    try:
                        if entry.is_dir():
                            if self._exclude is None or os.path.realpath(entry.path) != self._exclude:
                                folders.append(entry.name)
                        elif entry.is_file():
                            files.append(entry.name)
                        elif entry.is_symlink() and os.path.splitext(entry.name)[1].lower() in self._extensions:
                            self._tell(InputError(f"{printable(entry.path)} is a link that leads to no file", "it was left out"))
                    except OSError as exc:
                        self._tell(InputError(f"{printable(entry.path)} cannot be read: {_cause(exc)}", "it was left out"))
        except OSError as exc:
            self._tell(InputError(f"the folder {printable(folder)} cannot be read: {_cause(exc)}", "it was left out"))
        return sorted(files), sorted(folders)

    def _tell(self, problem: InputError) -> None:
        if self._report is not None:
            self._report(problem)

    def _pattern(self, pattern: str) -> Iterator[InputFile]:
        # The look ahead has a memory of its own: what it finds may belong to an earlier input.
        if next(_Finder(self._excluded, None, self._extensions)._matches(pattern), None) is None:
            raise InputError(f"nothing matches {printable(pattern)}", "quote patterns, and check the path before the wildcards")
        return self._matches(pattern)

    def _matches(self, pattern: str) -> Iterator[InputFile]:
        """Photos that a pattern names; below the part of it without wildcards the tree is kept."""
        parts = Path(pattern).parts
        fixed = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
        root = os.path.join(*parts[:fixed]) if fixed else ""
        # A pattern that spells out a suffix means it; `*` alone means photos.
        spelled = re.search(r"\.\w+$", parts[-1]) is not None
        return self._matched(self._matching(root, PurePath(), parts[fixed:], set()), spelled)

    def _matched(self, matches: Iterator[tuple[str, PurePath, bool]], spelled: bool) -> Iterator[InputFile]:
        entered: set[str] = set()
        for path, relative, is_folder in matches:
            if is_folder:
                yield from self._walk(path, relative, entered)
            elif spelled or os.path.splitext(path)[1].lower() in self._extensions:
                yield from self._file(Path(path), relative, os.path.realpath(path))

    def _matching(
        self, folder: str, relative: PurePath, parts: tuple[str, ...], above: set[str]
    ) -> Iterator[tuple[str, PurePath, bool]]:
        """(path, path below the root, whether it is a folder) of all that matches `parts` in `folder`."""
        head, rest = parts[0], parts[1:]
        if folder and not os.path.isdir(folder):
            return
        if head == "**":
            real = os.path.realpath(folder or ".")
            if real in above:
                return
            if rest and rest[0] != "**":
                yield from self._matching(folder, relative, rest, set())
            files, folders = self._listing(folder)
            if not rest:
                for name in files:
                    yield os.path.join(folder, name), relative / name, False
            for name in folders:
                yield from self._matching(os.path.join(folder, name), relative / name, parts, above | {real})
            return
        files, folders = self._listing(folder)
        if not any(c in head for c in "*?["):  # a plain name after a wildcard; may be hidden, since it is spelled out
            target = os.path.join(folder, head)
            files, folders = ([head] if os.path.isfile(target) else []), ([head] if os.path.isdir(target) else [])
        else:
            matcher = re.compile(fnmatch.translate(head))
            files = [name for name in files if matcher.fullmatch(name)]
            folders = [name for name in folders if matcher.fullmatch(name)]
        if not rest:
            yield from ((os.path.join(folder, name), relative / name, False) for name in files)
            yield from ((os.path.join(folder, name), relative / name, True) for name in folders)
        else:
            for name in folders:
                yield from self._matching(os.path.join(folder, name), relative / name, rest, set())


def _store_error(shown: str, exc: OSError) -> InputError:
    return InputError(f"{shown} cannot be read: {storage.cause(exc)}", storage.TRY)


def _kind(mode: int) -> str:
    for test, name in ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISDIR, "folder")):
        if test(mode):
            return name
    return "device"


# --- names of outputs -----------------------------------------------------------------------------------------------

_RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))])


class OutputNames:
    """Gives each input its own output path below one folder, the tree of the inputs mirrored.

    The rule, applied with upper and lower case and Unicode composition ignored, so that it holds on any disk:

    1. `sub/a.jpg` becomes `sub/a` + suffix.
    2. Where the input's own folder holds more than one photo of that stem, the `.jpg` keeps `a` + suffix, and each other
       one keeps its own suffix too: `a.png` becomes `a.png` + suffix. Of `a.jpg` and `A.JPG` the one with the
       lower-case suffix keeps the short name, then the first by name. The folder's listing decides, not the batch, so a
       file has the same output name alone, in another order, and in a second run.
    3. What still clashes (files of one name from different folders) gets `-2`, `-3` ... in the order asked for.

    Args:
        output_dir: the folder of the outputs; None: each output lies beside its input.
        suffix: of the outputs, such as ".jpg" or ".depth.png".
        extensions: lower-case suffixes of files that are inputs of the same kind, with which rule 2 is concerned.
    """

    def __init__(self, output_dir: AnyPath | None, suffix: str = ".jpg", *, extensions: frozenset[str] = EXTENSIONS) -> None:
        self._output_dir = output_dir
        self._existing = storage.Existing()
        self._suffix = suffix
        self._extensions = extensions
        self._claimed: dict[int, int] = {}  # hash of the output path to hash of its input: two integers a file
        self._listings: OrderedDict[str, _Listing] = OrderedDict()

    def path_for(self, file: InputFile) -> AnyPath:
        """The output path of an input; the same again when the same input is asked for again."""
        if self._output_dir is None:
            folder: AnyPath = file.path.parent
        else:
            folder = self._output_dir.joinpath(*_safe_parts(file.relative.parts[:-1]))
        name = _safe_part(file.relative.name)
        stem, extension = os.path.splitext(name)
        listing = self._listing(file.path.parent)
        base = stem if listing.owner(stem, name) == name else stem + extension
        asker = hash(str(file.path.absolute()))
        for number in itertools.count(1):
            candidate = base if number == 1 else f"{base}-{number}"
            belongs_elsewhere = candidate != stem and listing.holds(candidate)
            if belongs_elsewhere or listing.is_folder(candidate + self._suffix):
                continue
            key = hash(_folded(str(folder / (candidate + self._suffix))))
            if self._claimed.setdefault(key, asker) == asker:
                target = folder / (candidate + self._suffix)
                return self._existing.marked(target) if isinstance(target, StorePath) else target
        raise AssertionError("unreachable: the numbers do not end")

    def _listing(self, folder: AnyPath) -> _Listing:
        key = str(folder)
        listing = self._listings.pop(key, None) or _Listing(folder, self._extensions)
        self._listings[key] = listing
        while len(self._listings) > 4:  # inputs come folder by folder
            self._listings.popitem(last=False)
        return listing


class _Listing:
    """The photos of one folder by folded stem, and its sub-folders."""

    def __init__(self, folder: AnyPath, extensions: frozenset[str]) -> None:
        self._names: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        try:
            if isinstance(folder, StorePath):
                for place, is_dir in folder.list():
                    self._add(place.name, is_dir, extensions)
                return
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_dir = False
                    with contextlib.suppress(OSError):  # a loop of links
                        is_dir = entry.is_dir()
                    self._add(entry.name, is_dir, extensions)
        except OSError:
            pass  # the input itself may still be readable; its name then stands alone

    def _add(self, name: str, is_dir: bool, extensions: frozenset[str]) -> None:
        stem, extension = os.path.splitext(name)
        if name.startswith("."):
            return
        if is_dir:
            self._folders.add(_folded(name))
        elif extension.lower() in extensions:
            self._names.setdefault(_folded(stem), []).append(name)

    def owner(self, stem: str, name: str) -> str | None:
        """Which photo of this stem takes the short name; None where each keeps its own suffix."""
        names = self._names.get(_folded(stem), [])
        others = [other for other in names if other != name]
        if not others:
            return name
        jpegs = [other for other in {*names, name} if other.lower().endswith(".jpg")]
        return min(jpegs, key=lambda n: (not n.endswith(".jpg"), n), default=None)

    def holds(self, candidate: str) -> bool:
        """Whether a photo has `candidate` for its stem, and so the first claim to that name."""
        return _folded(candidate) in self._names

    def is_folder(self, name: str) -> bool:
        return _folded(name) in self._folders


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _safe_parts(parts: Sequence[str]) -> list[str]:
    return [_safe_part(part) for part in parts if part not in ("", ".", "..", os.sep) and not PurePath(part).anchor]


def _safe_part(part: str, *, windows: bool = os.name == "nt") -> str:
    """One part of an output path that stays in its folder; on Windows, also no name of a device or stream."""
    part = part.replace("/", "_").replace("\0", "_")
    if windows:
        part = re.sub(r'[<>:"\\|?*\x01-\x1f]', "_", part).rstrip(". ") or "_"
        if part.split(".")[0].rstrip().lower() in _RESERVED:
            part = f"_{part}"
    return part if part not in ("", ".", "..") else "_"


# --- reading --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """A photo in memory, in its stored frame.

    Attributes:
        pixels: uint8 (H, W, 3) RGB or (H, W) grey; EXIF orientation not applied, transparency flattened on white.
        orientation: EXIF orientation, 1..8; 1 where there is none or a broken one.
        icc: ICC profile that describes `pixels`, or None (then sRGB).
        exif: Exif block as in a JPEG APP1 segment, from `Exif\\0\\0` on, or None.
        xmp: XMP packet without any header, or None.
        format: "JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF" or "PPM".
        source_bytes: size of the file.
        jpeg: the file's own bytes where it is a JPEG, else None.
        dpi: horizontal and vertical resolution, or None.
        notices: what a user should know about how the photo was read.
    """

    pixels: Pixels
    orientation: int
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    format: str
    source_bytes: int
    jpeg: bytes | None
    dpi: tuple[float, float] | None = None
    notices: tuple[str, ...] = ()


def load(path: AnyPath, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Read a photo; the file is opened and read once.

    Args:
        path: the file.
        max_pixels: a larger picture is refused by its header, before memory is taken.

    Raises:
        InputError: missing, unreadable, empty, not a file, or not an image that we read.
        FormatError: an image, but broken; `TruncatedError` cut off, `TooLargeError` over the limit,
            `UnsupportedError` of a kind we do not read.
        MissingExtraError: a HEIC without pillow-heif.
    """
    return load_bytes(_read_photo(path, max_pixels), printable(path), max_pixels=max_pixels)


def load_bytes(data: bytes, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Read a photo from memory; `name` stands in messages. Limits and errors as `load`."""
    with _opened(data, name, max_pixels) as (image, kind):
        frames = _frames(image, kind)
        _decode(image, data, name, kind)
        notices: list[str] = []
        if frames > 1:
            notices.append(
                f"first of {frames} pages" if kind == "TIFF"
                else f"main picture of {frames}" if kind in ("JPEG", "HEIF")
                else f"first of {frames} frames"
            )  # fmt: skip
        with _pillow(name, kind, data):
            info = dict(image.info)
            exif = _exif_of(image, info, kind, notices)
            icc = info.get("icc_profile")
            pixels, icc = _to_eight_bit(image, data, name, kind, icc if isinstance(icc, bytes) and icc else None, notices)
    xmp = info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "replace")
    return Photo(
        pixels=pixels,
        orientation=_orientation(exif),
        icc=icc,
        exif=exif,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        format=kind,
        source_bytes=len(data),
        jpeg=data if kind == "JPEG" else None,
        dpi=_dpi(info.get("dpi")),
        notices=tuple(notices),
    )


def decode_jpeg(data: bytes) -> Pixels:
    """Pixels of a JPEG that we wrote: uint8 (H, W, 3) RGB or (H, W) grey, stored frame; any size.

    Raises:
        FormatError: the bytes are no whole JPEG.
    """
    with _opened(data, "the JPEG", None) as (image, kind):
        _decode(image, data, "the JPEG", kind)
        with _pillow("the JPEG", kind, data):
            return _array(image if image.mode in ("L", "RGB") else image.convert("RGB"))


class JpegPixels:
    """A decoded picture that gives its pixels part by part, so that no array of them all is made.

    Attributes:
        shape: (H, W, 3), or (H, W) where it is grey.
        dtype: uint8.
    """

    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, image: Image.Image) -> None:
        self._image = image if image.mode in ("L", "RGB") else image.convert("RGB")
        self.shape: tuple[int, ...] = (image.height, image.width, 3)[: 2 if image.mode == "L" else 3]

    def __getitem__(self, part: tuple[slice, slice], /) -> Pixels:
        """Some rows and columns, in steps of 1, as a new array."""
        top, bottom, _ = part[0].indices(self.shape[0])
        left, right, _ = part[1].indices(self.shape[1])
        return np.asarray(self._image.crop((left, top, right, bottom)))


@contextlib.contextmanager
def jpeg_pixels(data: bytes) -> Iterator[JpegPixels]:
    """`decode_jpeg` for large pictures: the pixels part by part, until the context ends. Errors as `decode_jpeg`."""
    with _opened(data, "the JPEG", None) as (image, kind):
        _decode(image, data, "the JPEG", kind)
        yield JpegPixels(image)


def read_depth_map(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.float32]:
    """A ready-made depth map: float32 (h, w) in 0..1, bright = near, in the file's stored frame.

    8-bit and 16-bit grey by their full range, colour by its luma (BT.601), transparency ignored; 32-bit integer and
    float maps by their own least and largest value (all 0 where they are equal; not-a-number counts as far).

    Raises:
        InputError, FormatError, MissingExtraError: as `load`.
    """
    data = _read_photo(Path(path), max_pixels)
    name = printable(path)
    with _opened(data, name, max_pixels) as (image, kind):
        _decode(image, data, name, kind)
        with _pillow(name, kind, data):
            if image.mode.startswith("I;16"):
                return np.asarray(image).astype(np.float32) / np.float32(65535)
            if image.mode in ("I", "F"):
                values = np.asarray(image)
                if image.mode == "I" and _sample_bits(image, data, kind) == 16 and values.min() >= 0 and values.max() <= 65535:
                    return values.astype(np.float32) / np.float32(65535)
                return _stretched(values, name)[0]
            if image.mode in ("P", "PA", "RGBA", "LA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
                image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
            return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)


def _read_photo(path: AnyPath, max_pixels: int) -> bytes:
    return read_file(path, check=_recognise, max_bytes=16 * max_pixels + (64 << 20))


Check = Callable[[bytes, str], object]


def read_file(path: AnyPath, *, check: Check, max_bytes: int) -> bytes:
    """The bytes of a file, read once; nothing large that is not what is wanted is ever read.

    Args:
        path: the file.
        check: is given the first bytes of a file that is not empty, and its name; raises where it is not wanted.
        max_bytes: a larger file is refused before it is read.

    Raises:
        InputError: missing, not a file, no permission; TooLargeError.
    """
    if isinstance(path, StorePath):
        return _stored_bytes(path, check, max_bytes)
    with _file(path, check) as (file, size):
        if size > max_bytes:
            raise _too_many_bytes(path, size)
        file.seek(0)
        return file.read()


def _too_many_bytes(path: AnyPath, size: int) -> TooLargeError:
    return TooLargeError(
        f"{printable(path)} has {size} bytes, more than a picture of the allowed size", "raise the limit with --max-pixels"
    )


def _stored_bytes(path: StorePath, check: Check, max_bytes: int | None) -> bytes:
    """An object of a store; one that is large shows its first bytes before the rest is fetched."""
    name = printable(path)
    try:
        size = path.stat().st_size
        if size > _STORED_WHOLE:
            check(path.head(_HEAD_BYTES), name)
        if max_bytes is not None and size > max_bytes:
            raise _too_many_bytes(path, size)
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise InputError(f"{name} does not exist", "check the bucket and the key") from exc
    except OSError as exc:
        raise _store_error(name, exc) from exc
    except MemoryError as exc:
        raise TooLargeError(f"{name} does not fit into memory", "make it smaller, or run fewer jobs at once") from exc
    if data:
        check(data[:_HEAD_BYTES], name)
    return data


def map_file(path: AnyPath, *, check: Check) -> bytes | mmap.mmap:
    """The bytes of a file, mapped and not read (fetched from a store); arguments and errors as for `read_file`."""
    if isinstance(path, StorePath):
        return _stored_bytes(path, check, None)
    with _file(path, check) as (file, size):
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


@contextlib.contextmanager
def _file(path: Path, check: Check) -> Iterator[tuple[io.FileIO, int]]:
    """A regular file that passes the check, and its size; what goes wrong with it is one of our errors."""
    name = printable(path)
    try:
        # Without O_NONBLOCK the opening of a pipe with no writer would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as exc:
        raise InputError(f"{name} does not exist", "check the path") from exc
    except (OSError, ValueError) as exc:
        raise InputError(f"{name} cannot be opened: {_cause(exc)}", "check the path and its permissions") from exc
    try:
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{name} is a {_kind(status.st_mode)}, not a file", "name a file")
            head = file.read(_HEAD_BYTES)
            if head:
                check(head, name)
            yield file, status.st_size
    except OSError as exc:
        raise InputError(f"{name} cannot be read: {_cause(exc)}", "check the disk and the file's permissions") from exc
    except MemoryError as exc:
        raise TooLargeError(f"{name} does not fit into memory", "make it smaller, or run fewer jobs at once") from exc


def _recognise(head: bytes, name: str) -> str:
    """The format by its magic number.

    Raises:
        InputError: empty, or none of the formats that we read.
    """
    if not head:
        raise InputError(f"{name} is empty", "copy or download it again")
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        size = min(max(struct.unpack(">I", head[:4])[0], 16), _HEAD_BYTES)
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)) - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIF"
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "TIFF"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    if re.match(rb"P[1-6f][\s#]", head):
        return "PPM"
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise InputError(f"{name} is {what}, which is not read", f"convert it first; {_READABLE}")
    raise InputError(f"{name} is not an image", _READABLE)


_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop file"),
)


@contextlib.contextmanager
def _pillow(name: str, kind: str, data: bytes) -> Iterator[None]:
    """Turns whatever a decoder throws into our errors. Only calls into Pillow belong inside.

    Decoders fail on broken files with almost any exception (OSError, SyntaxError, ValueError, struct.error, KeyError,
    zlib.error ...), so all of them are caught here, and here alone.
    """
    try:
        yield
    except (FormatError, InputError, MissingExtraError):
        raise
    except MemoryError as exc:
        raise TooLargeError(f"{name} does not fit into memory", "make it smaller, or run fewer jobs at once") from exc
    except Exception as exc:
        raise _format_error(name, kind, data, exc) from exc


def _format_error(name: str, kind: str, data: bytes, exc: Exception) -> FormatError:
    text = str(exc).lower()
    if kind == "JPEG" and (special := _jpeg_special(data)):
        return UnsupportedError(f"{name} is {special}, which is not read", "convert it to an ordinary 8-bit JPEG or a PNG")
    if _is_cut(kind, data) or "truncated" in text or isinstance(exc, EOFError):
        return TruncatedError(f"{name} is cut off: the {kind} data end too early", "copy or download it again")
    if isinstance(exc, Image.DecompressionBombError):
        return TooLargeError(f"{name} is larger than allowed", "make it smaller, or raise the limit of pixels")
    known = ("unsupported", "unknown", "not supported", "cannot handle", "missing codec", "not implemented")
    whole_tiff = kind == "TIFF" and isinstance(exc, UnidentifiedImageError)  # Pillow's word for sample layouts it does not know
    if whole_tiff or isinstance(exc, NotImplementedError) or any(word in text for word in known):
        return UnsupportedError(f"{name} is a {kind} of a kind that is not read", "convert it to an ordinary JPEG or PNG")
    return FormatError(
        f"{name} is broken: its {kind} data cannot be decoded", "copy it again, or open and save it in another program"
    )


def _jpeg_special(data: bytes) -> str | None:
    """What sets a JPEG apart that Pillow refuses; None for an ordinary one."""
    end = 2
    try:
        for marker in markers(data):
            if data[end : marker.end - len(marker.payload) - 4].strip(b"\xff"):
                return None  # bytes that belong to no segment: it is broken, whatever the rest says
            end = marker.end
            if 0xC0 <= marker.code <= 0xCF and marker.code not in (DHT, 0xC8, DAC):
                return _special_frame(marker.code, marker.payload)
            if marker.code == SOS:
                return None
    except FormatError:
        return None
    return None


def _special_frame(marker: int, header: bytes) -> str | None:
    if header and header[0] != 8:
        return f"a {header[0]}-bit JPEG"
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "a lossless JPEG"
    if marker in (0xC5, 0xC6, 0xCD, 0xCE):
        return "a hierarchical JPEG"
    return "an arithmetic-coded JPEG" if marker in (0xC9, 0xCA) and not _has_arithmetic() else None


def _has_arithmetic() -> bool:
    """Whether the JPEG library decodes arithmetic coding: always so in Pillow's own builds (libjpeg-turbo)."""
    from PIL import features

    return bool(features.check_feature("libjpeg_turbo"))


def _is_cut(kind: str, data: bytes) -> bool:
    """Whether a container that states its length, or must end in a mark, was cut; decoders do not always say so."""
    if kind == "WEBP":
        return len(data) < 20 or len(data) < int.from_bytes(data[4:8], "little") + 8
    if kind == "JPEG":
        return not data[-64:].rstrip(b"\x00").endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9") == -1
    if kind == "PNG":
        return b"IEND" not in data[-4096:]
    if kind == "TIFF":
        return data[2:4] in (b"*\x00", b"\x00*") and exif_directory(data) is None
    if kind == "GIF":
        return not data.rstrip(b"\x00").endswith(b";")
    if kind == "BMP":
        return len(data) < max(26, int.from_bytes(data[2:6], "little"))
    if kind in ("AVIF", "HEIF"):
        position = 0
        while position + 8 <= len(data):
            size = int.from_bytes(data[position : position + 4], "big")
            if size == 1 and position + 16 <= len(data):
                size = int.from_bytes(data[position + 8 : position + 16], "big")
            if size == 0:
                return False
            if size < 8:
                return False
            position += size
        return position > len(data) or position + 8 > len(data) > position
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Pillow without its warnings and without its own limit of pixels; ours was or will be applied.

    Both are settings of the whole process, hence the lock, and hence not kept longer than needed.
    """
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _opened(data: bytes, name: str, max_pixels: int | None) -> Iterator[tuple[Image.Image, str]]:
    """An image by its header only, checked for size, and its format."""
    kind = _recognise(data[:_HEAD_BYTES], name)
    if kind == "WEBP":  # its decoder takes memory for the whole picture as soon as it is opened
        _check_size(_webp_size(data), name, max_pixels)
    with _pillow(name, kind, data):
        if kind == "HEIF":
            opener = _heif_opener()
            with _quiet():
                image: Image.Image = opener(io.BytesIO(data))
        else:
            importlib.import_module(f"PIL.{_PLUGINS[kind]}")
            with _quiet():
                image = Image.open(io.BytesIO(data), formats=[kind])
    try:
        _check_size(image.size, name, max_pixels)
        yield image, kind
    finally:
        image.close()


def _heif_opener() -> Callable[[io.BytesIO], Image.Image]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as exc:
        raise MissingExtraError("pillow-heif (HEIC photos)", "heif") from exc
    return HeifImageFile  # type: ignore[no-any-return]


def _check_size(size: tuple[int, int] | None, name: str, max_pixels: int | None) -> None:
    if size is not None and max_pixels is not None and size[0] * size[1] > max_pixels:
        raise TooLargeError(
            f"{name} has {size[0]} x {size[1]} pixels, more than the {max_pixels / 1e6:g} million allowed",
            "make it smaller, or raise the limit of pixels",
        )


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def _decode(image: Image.Image, data: bytes, name: str, kind: str) -> None:
    with _pillow(name, kind, data):
        if kind == "JPEG":  # does not warn, and must not wait for other threads
            image.load()
        else:
            with _quiet():
                image.load()


def _frames(image: Image.Image, kind: str) -> int:
    """Number of pictures in the file; 1 where that cannot be told, since the first one counts."""
    try:
        with _quiet():
            frames = int(getattr(image, "n_frames", 1))
            if frames > 1 and kind != "HEIF":
                image.seek(0)
    except Exception:  # a decoder on a broken later frame; if the first one is broken too, decoding says so
        return 1
    return frames


# --- colour and depth of samples ------------------------------------------------------------------------------------


def _to_eight_bit(
    image: Image.Image, data: bytes, name: str, kind: str, icc: bytes | None, notices: list[str]
) -> tuple[Pixels, bytes | None]:
    """Pixels as uint8 RGB or grey, and the ICC profile if it still describes them; adds to `notices`."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" not in image.info:
        if _sample_bits(image, data, kind) == 16:
            notices.append("16 bits a sample reduced to 8")
        pixels = _array(image)
    elif mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        notices.append("16 bits a sample reduced to 8")
        pixels = ((values * 255 + 32767) // 65535).astype(np.uint8)
        clear = image.info.get("transparency")
        if isinstance(clear, int) and (values == clear).any():
            pixels[values == clear] = 255
            notices.append("transparency flattened on white")
    elif mode in ("I", "F"):
        pixels = _wide_grey(image, data, name, kind, notices)
    elif mode == "1":
        pixels = _array(image.convert("L"))
    elif mode == "CMYK":
        return _array(_from_cmyk(image, icc, notices)), None
    elif mode in ("LAB", "YCbCr", "HSV"):
        pixels, icc = _array(image.convert("RGB")), None
        if mode == "LAB":
            notices.append("LAB converted to sRGB")
    else:
        if mode in ("LA", "RGBA") and _sample_bits(image, data, kind) == 16:
            notices.append("16 bits a sample reduced to 8")
        with _quiet():
            pixels = _array(_flattened(image, notices))
    if icc is not None and icc[16:20] != (b"GRAY" if pixels.ndim == 2 else b"RGB "):
        notices.append("ICC profile left out: it does not fit the colours")
        icc = None
    return pixels, icc


def _flattened(image: Image.Image, notices: list[str]) -> Image.Image:
    """Without palette and transparency, on white: mode L or RGB."""
    grey = image.mode in ("L", "LA", "La", "1")
    if image.mode in ("RGBa", "La"):  # colours multiplied by their alpha already
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    elif image.mode in ("PA",) or "transparency" in image.info:
        image = image.convert("LA" if grey else "RGBA")
    if image.mode not in ("RGBA", "LA"):
        return image.convert("L" if grey else "RGB")
    alpha = image.getchannel("A")
    opaque = image.convert("L" if grey else "RGB")
    if alpha.getextrema() == (255, 255):
        return opaque
    notices.append("transparency flattened on white")
    white = Image.new(opaque.mode, image.size, "white")
    white.paste(opaque, mask=alpha)
    return white


def _from_cmyk(image: Image.Image, icc: bytes | None, notices: list[str]) -> Image.Image:
    """CMYK to sRGB: by the photo's own profile if it has a usable one, else by the plain formula."""
    if icc is not None and icc[16:20] == b"CMYK":
        from PIL import ImageCms

        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None  # a broken profile: the plain formula still gives a picture
        if converted is not None:
            notices.append("CMYK converted to sRGB by its ICC profile")
            return converted
    notices.append("CMYK converted to RGB without a usable ICC profile: colours are approximate")
    return image.convert("RGB")


def _wide_grey(image: Image.Image, data: bytes, name: str, kind: str, notices: list[str]) -> Pixels:
    """Grey of 32-bit integers or floats to uint8."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "I" and low >= 0 and high <= 65535 and _sample_bits(image, data, kind) == 16:
        notices.append("16 bits a sample reduced to 8")
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 1:
        notices.append("float samples 0..1 reduced to 8 bits")
        return np.asarray(np.rint(values * 255), np.uint8)
    level, (low, high) = _stretched(values, name)
    notices.append(f"samples from {low:g} to {high:g} stretched to 8 bits")
    return np.rint(level * 255).astype(np.uint8)


def _stretched(values: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """Values by their own range: float32 in 0..1, and that range. Not-a-number counts as the least."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise UnsupportedError(f"{name} holds no finite value", "export it again with 8 or 16 bits a sample")
    low, high = float(finite.min()), float(finite.max())
    if not high > low:
        return np.zeros(values.shape, np.float32), (low, high)
    clean = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return ((clean - low) / (high - low)).astype(np.float32), (low, high)


def _sample_bits(image: Image.Image, data: bytes, kind: str) -> int:
    """Bits of a stored sample where the format has more than 8 in use; else 8."""
    if kind == "PNG" and len(data) > 24:
        return data[24]
    if kind == "PPM":
        return 16 if image.mode == "I" else 8
    if kind == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return int(bits[0] if isinstance(bits, tuple) else bits)
    return 8


def _array(image: Image.Image) -> Pixels:
    """Pixels of an L or RGB image as a new array; in strips, so that no second whole copy is made beside it."""
    width, height = image.size
    if width * height <= _STRIP_PIXELS * 2:
        return np.array(image, dtype=np.uint8)
    pixels = np.empty((height, width) if image.mode == "L" else (height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


# --- metadata -------------------------------------------------------------------------------------------------------


def _exif_of(image: Image.Image, info: dict[Any, Any], kind: str, notices: list[str]) -> bytes | None:
    """The Exif block from `Exif\\0\\0` on; None, with a notice, where it cannot be one."""
    if kind == "TIFF":
        return _exif_of_tiff(image)
    exif = info.get("exif")
    if not isinstance(exif, bytes) or not exif:
        return None
    body = exif.removeprefix(EXIF)
    if exif_directory(body) is None:
        notices.append("EXIF data left out: they are broken")
        return None
    return EXIF + body


# Of a TIFF's own tags those that describe the photo; the others describe how its pixels are stored. Not the orientation:
# Pillow turns a TIFF upright as it decodes.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)


def _exif_of_tiff(image: Image.Image) -> bytes | None:
    try:
        with _quiet():
            tags = getattr(image, "tag_v2", {})
            own = image.getexif()
            made = Image.Exif()
            for tag in _DESCRIPTIVE:
                if tag in (0x8769, 0x8825):
                    directory = own.get_ifd(tag)
                    if directory:
                        made[tag] = dict(directory)
                elif tag in tags:
                    made[tag] = tags[tag]
            return made.tobytes() if len(made) else None
    except Exception:  # Pillow writes what it read; odd tags make it fail in many ways, and a photo needs none of them
        return None


def _orientation(exif: bytes | None) -> int:
    return exif_orientation((exif or b"").removeprefix(EXIF))


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(v) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (math.isfinite(horizontal) and math.isfinite(vertical) and horizontal > 1 and vertical > 1):
        return None  # 0 and 1 stand for "no unit" in JFIF and TIFF
    return horizontal, vertical


# --- frames ---------------------------------------------------------------------------------------------------------


def upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """From the stored frame to the picture as displayed.

    Args:
        array: (H, W) or (H, W, C), any dtype.
        orientation: EXIF orientation 1..8; other numbers count as 1.

    Returns:
        A view of `array`: (H, W, ...) for orientations 1 to 4, (W, H, ...) for 5 to 8.
    """
    if orientation >= 5 and orientation <= 8:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def stored(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The inverse of `upright`: from the picture as displayed to the stored frame; a view."""
    # 6 and 8 turn by a quarter and undo each other; each of the others undoes itself.
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def thumbnail(pixels: Pixels, *, long_side: int) -> Pixels:
    """A smaller copy whose longer side has `long_side` pixels; never enlarged. uint8 (H, W, 3) or (H, W), as given."""
    height, width = pixels.shape[:2]
    if max(height, width) <= long_side:
        return np.array(pixels)
    scale = long_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.array(small, dtype=np.uint8)


def to_srgb(photo: Photo) -> tuple[Pixels, tuple[str, ...]]:
    """A photo's pixels with its ICC profile applied, and what a user should know about that; in the stored frame.

    For outputs that carry no profile. Returns uint8 (H, W, 3) or, for a grey photo, (H, W). Pixels that have no profile, or one
    of sRGB by its name, are returned as they are.
    """
    if photo.icc is None:
        return photo.pixels, ()
    from PIL import ImageCms

    grey = photo.pixels.ndim == 2
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(photo.icc))
        name = ImageCms.getProfileDescription(profile).strip()
        if not grey and "srgb" in name.lower():
            return photo.pixels, ()
        converted = ImageCms.profileToProfile(
            Image.fromarray(photo.pixels),
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if converted is None:
            raise ValueError
        pixels = _array(converted)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return photo.pixels, ("ICC profile left out: it cannot be used",)
    return (np.ascontiguousarray(pixels[..., 1]) if grey else pixels), (
        f"converted to sRGB from {printable(name) or 'its ICC profile'}",
    )


def resize_map(values: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """A map at another size, without overshoot: float32 (h, w) in 0..1 to (height, width) in 0..1, triangle filter."""
    if values.shape == (height, width):
        return np.asarray(values, np.float32)
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32).clip(0, 1)


# --- writing --------------------------------------------------------------------------------------------------------


def encode_plain_jpeg(
    pixels: Pixels,
    *,
    quality: int,
    subsampling: str = "4:2:0",
    optimize: bool = False,
    progressive: bool = False,
    icc: bytes | None = None,
    exif: bytes | None = None,
) -> bytes:
    """An ordinary JPEG by Pillow (libjpeg-turbo): what results are compared with.

    Args:
        pixels: uint8 (H, W, 3) RGB or (H, W) grey.
        quality: 1..100, the scale of the Independent JPEG Group.
        subsampling: "4:4:4", "4:2:2" or "4:2:0"; grey has none.
        icc, exif: metadata to carry, as in `Photo`.

    Raises:
        UnsupportedError: a side longer than the 65,535 pixels that a JPEG can hold.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > _MAX_JPEG_SIDE:
        raise UnsupportedError(f"{width} x {height} pixels do not fit into a JPEG", "no side may be longer than 65535 pixels")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    options: dict[str, Any] = {"quality": quality, "optimize": optimize, "progressive": progressive}
    if image.mode == "RGB":
        options["subsampling"] = subsampling
    if icc:
        options["icc_profile"] = icc
    if exif:
        options["exif"] = exif
    buffer = io.BytesIO()
    try:
        image.save(buffer, "JPEG", **options)
    except (ValueError, OSError) as exc:  # metadata that no JPEG segment can hold
        if not (icc or exif):
            raise
        raise UnsupportedError("the metadata do not fit into a JPEG", "leave the metadata out") from exc
    return buffer.getvalue()


def encode_depth_png16(depth: npt.NDArray[np.float32]) -> bytes:
    """A depth map as a 16-bit grey PNG: float (h, w) in 0..1 to 0..65535; not-a-number as 0."""
    levels = np.rint(np.nan_to_num(np.asarray(depth, np.float32), nan=0.0).clip(0, 1) * np.float32(65535)).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def encode_png(pixels: Pixels) -> bytes:
    """A PNG of 8-bit pixels: uint8 (H, W, 3) RGB or (H, W) grey."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_atomic(
    path: AnyPath,
    data: bytes | Iterable[bytes],
    *,
    overwrite: bool = True,
    times: tuple[int, int] | None = None,
    below: AnyPath | None = None,
) -> None:
    """Write a file whole or not at all: into a hidden file beside it, then renamed. Missing folders are made.

    A link at `path` is itself replaced, never followed. Whatever fails, Ctrl-C included, leaves no file behind; only a process
    that is killed can, and `remove_leftovers` finds that. An object of a store is put whole, and keeps no times.

    Args:
        data: the content, whole or part by part.
        overwrite: False refuses a `path` that exists, also one that appears meanwhile.
        times: times of last access and last change, in nanoseconds.
        below: a folder of outputs that holds `path`; no folder between the two may be a link, whoever put it there and when.

    Raises:
        OutputError: with the cause: no space, no permission, read-only, name too long, exists ...
    """
    name = printable(path)
    if isinstance(path, StorePath):
        try:
            path.write_bytes(data if isinstance(data, bytes) else b"".join(data))
        except OSError as exc:
            raise OutputError(f"{name} cannot be written: {storage.cause(exc)}", storage.TRY) from exc
        return
    if not isinstance(below, Path):
        below = None
    path = Path(path)
    temporary: str | None = None
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_folder_of(path, below))  # a descriptor, or None where names are whole paths
            here = (lambda part: part) if folder is not None else (lambda part: os.path.join(path.parent, part))
            final = here(path.name)
            if not overwrite and _lexists(final, folder):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if _lexists(final, folder) and stat.S_ISDIR(os.stat(final, dir_fd=folder, follow_symlinks=False).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            # A name of its own, not made from the target's: that may be as long as the file system allows.
            temporary = here(f"{_leftover_prefix()}{os.getpid()}-{secrets.token_hex(6)}.tmp")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            descriptor = os.open(temporary, flags, 0o666, dir_fd=folder)
            try:
                for part in (data,) if isinstance(data, bytes) else data:
                    rest = memoryview(part)
                    while rest:
                        rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)  # may be the first to say that a quota or a network disk is full
            if times is not None:
                os.utime(temporary, ns=times, dir_fd=folder)
            if overwrite:
                os.replace(temporary, final, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                _rename_to_new(temporary, final, folder)
            temporary = None
        except FileExistsError as exc:
            # mkdir says the same of a file where a folder is needed
            if overwrite:
                raise OutputError(f"{name} cannot be written: {_cause(exc)}", "choose another output folder") from exc
            raise OutputError(f"{name} exists already", "--overwrite replaces it") from exc
        except (OSError, ValueError) as exc:
            raise OutputError(f"{name} cannot be written: {_cause(exc)}", _what_to_try(exc)) from exc
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)


@contextlib.contextmanager
def _folder_of(path: Path, below: Path | None) -> Iterator[int | None]:
    """The folder that a file is to be written into, made where it is missing: a descriptor, entered from `below` part by part
    without following a link. None (the path is used as it is) without `below`, or where the system has no such descriptors."""
    if below is None or os.open not in os.supports_dir_fd or os.replace not in _WITH_FOLDERS:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield None
        return
    below.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
    folder = os.open(below, flags)
    try:
        for part in path.parent.relative_to(below).parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
                raise OutputError(
                    f"{printable(path)} cannot be written: the folder {printable(part)} is a link",
                    "remove it, or choose another folder",
                )
            inner = os.open(part, flags | getattr(os, "O_NOFOLLOW", 0), dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


_WITH_FOLDERS = os.supports_dir_fd | ({os.replace} if os.rename in os.supports_dir_fd else set())


def _lexists(name: str | Path, folder: int | None) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _rename_to_new(temporary: str | Path, path: str | Path, folder: int | None = None) -> None:
    """Rename, failing with FileExistsError where there is a file already; atomic where the disk knows hard links."""
    try:
        os.link(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        raise
    except OSError:
        if _lexists(path, folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(temporary, dir_fd=folder)


@functools.lru_cache(maxsize=1)
def _leftover_prefix() -> str:
    """Begins the names of files that are being written, and says on which machine."""
    return f".vizcomp-{blake2b(platform.node().encode(), digest_size=4).hexdigest()}-"


def remove_leftovers(folder: AnyPath) -> int:
    """Remove what processes of this machine that are no more were writing in a folder when they were killed; how many files."""
    removed = 0
    if isinstance(folder, StorePath):
        return removed  # an object appears whole
    pattern = re.compile(re.escape(_leftover_prefix()) + r"(\d+)-[0-9a-f]{12}\.tmp")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := pattern.fullmatch(entry.name)) and not _runs(int(match[1])):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def _runs(process: int) -> bool:
    if os.name == "nt":
        return True  # a signal would end it there, and there is no other way to ask
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def check_output_folder(path: AnyPath) -> None:
    """Make the folder if it is missing, and prove by a small file that it can be written.

    Raises:
        OutputError: it is a file, or cannot be made or written.
    """
    if isinstance(path, StorePath):
        path.check_writable()
        return
    path = Path(path)
    name = printable(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise OutputError(f"{name} is not a folder", "choose another output folder") from exc
    except (OSError, ValueError) as exc:
        raise OutputError(f"the folder {name} cannot be made: {_cause(exc)}", _what_to_try(exc)) from exc
    probe = path / f"{_leftover_prefix()}{os.getpid()}-{secrets.token_hex(6)}.tmp"
    try:
        write_atomic(probe, b"\n", overwrite=False)
    except OutputError as exc:
        cause = exc.__cause__
        text = _cause(cause) if cause is not None else exc.message
        raise OutputError(f"the folder {name} cannot be written: {text}", exc.hint) from exc
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)


_CAUSES = {
    errno.ENOSPC: ("no space left on the disk", "free some space, or choose another output folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another output folder"),
    errno.EACCES: ("permission denied", "check the permissions, or choose another output folder"),
    errno.EPERM: ("not permitted", "check the permissions, or choose another output folder"),
    errno.EROFS: ("the disk is read-only", "choose another output folder"),
    errno.ENAMETOOLONG: ("the name is too long", "shorten the file's name or the path of the output folder"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another output folder"),
    errno.EISDIR: ("there is a folder of that name", "choose another output folder"),
    errno.EEXIST: ("a part of its path is a file, not a folder", "choose another output folder"),
    errno.ELOOP: ("its links run in a circle", "choose another output folder"),
    errno.EMFILE: ("too many files are open", "run fewer jobs at once"),
    errno.EIO: ("the disk reports an error", "check the disk"),
}


def _cause(exc: BaseException) -> str:
    number = getattr(exc, "errno", None)
    if number in _CAUSES:
        return _CAUSES[number][0]
    return (getattr(exc, "strerror", None) or str(exc) or type(exc).__name__).lower()


def _what_to_try(exc: BaseException) -> str:
    return _CAUSES.get(getattr(exc, "errno", None) or 0, ("", "choose another output folder"))[1]
