"""One output path for each input."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePath

from vizcomp.errors import OutputError
from vizcomp.files.find import EXTENSIONS, InputFile
from vizcomp.files.place import STORE_HINT, disk_cause, disk_hint, printable, store_cause
from vizcomp.files.store import AnyPath, Stat, StorePath

_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)


class OutputNames:
    """Gives each input its own output path below one folder, the tree of the inputs mirrored.

    The rule, applied with upper and lower case and Unicode composition ignored, so that it holds on
    any disk:

    1. `sub/a.jpg` becomes `sub/a` + suffix.
    2. Where the input's own folder holds more than one photo of that stem, the `.jpg` keeps `a` +
       suffix, and each other one keeps its own suffix too: `a.png` becomes `a.png` + suffix. Of
       `a.jpg` and `A.JPG` the one with the lower-case suffix keeps the short name, then the first
       by name. The folder's listing decides, not the batch, so a file has the same output name
       alone, in another order, and in a second run.
    3. What still clashes (files of one name from different folders) gets `-2`, `-3` ... in the
    order asked for.

    Args:
        output_dir: the folder of the outputs; None: each output lies beside its input.
        suffix: of the outputs, such as ".jpg" or ".depth.png".
        extensions: lower-case suffixes of files that are inputs of the same kind, with which rule 2
            is concerned.
    """

    def __init__(
        self,
        output_dir: AnyPath | None,
        suffix: str = ".jpg",
        *,
        extensions: frozenset[str] = EXTENSIONS,
    ) -> None:
        self._output_dir = output_dir
        self._existing = Existing()
        self._suffix = suffix
        self._extensions = extensions
        # hash of the output path to hash of its input: two integers a file
        self._claimed: dict[int, int] = {}
        self._listings: OrderedDict[str, _Listing] = OrderedDict()

    def path_for(self, file: InputFile) -> AnyPath:
        """The output path of an input; the same again when the same input is asked for again."""
        if self._output_dir is None:
            folder: AnyPath = file.path.parent
        else:
            folder = self._output_dir.joinpath(*safe_parts(file.relative.parts[:-1]))
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
            target = folder / (candidate + self._suffix)
            if self._claimed.setdefault(hash(folded(str(target))), asker) == asker:
                if isinstance(target, StorePath):
                    # said when it is looked at, for this input alone
                    with contextlib.suppress(OutputError):
                        return self._existing.marked(target)
                return target
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
            self._folders.add(folded(name))
        elif extension.lower() in extensions:
            self._names.setdefault(folded(stem), []).append(name)

    def owner(self, stem: str, name: str) -> str | None:
        """Which photo of this stem takes the short name; None where each keeps its own suffix."""
        names = self._names.get(folded(stem), [])
        others = [other for other in names if other != name]
        if not others:
            return name
        jpegs = [other for other in {*names, name} if other.lower().endswith(".jpg")]
        return min(jpegs, key=lambda n: (not n.endswith(".jpg"), n), default=None)

    def holds(self, candidate: str) -> bool:
        """Whether a photo has `candidate` for its stem, and so the first claim to that name."""
        return folded(candidate) in self._names

    def is_folder(self, name: str) -> bool:
        return folded(name) in self._folders


def is_there(target: AnyPath) -> bool:
    """Whether there is something where an output goes.

    Raises:
        OutputError: that cannot be told: the name is too long, a folder cannot be entered, a store
            does not answer.
    """
    try:
        return target.exists()
    except (OSError, ValueError) as exc:
        shown = printable(target)
        if isinstance(target, StorePath):
            raise OutputError(
                f"{shown} cannot be looked at: {store_cause(exc)}", STORE_HINT
            ) from exc
        raise OutputError(f"{shown} cannot be written: {disk_cause(exc)}", disk_hint(exc)) from exc


def is_folder(place: AnyPath) -> bool:
    """Whether a folder is there.

    Raises:
        OutputError: as `is_there`.
    """
    return is_there(place) and place.is_dir() if isinstance(place, Path) else place.is_dir()


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_parts(parts: Sequence[str]) -> list[str]:
    return [
        _safe_part(part)
        for part in parts
        if part not in ("", ".", "..", os.sep) and not PurePath(part).anchor
    ]


def _safe_part(part: str, *, windows: bool = os.name == "nt") -> str:
    """One part of an output path that stays in its folder; on Windows, also no name of a device or
    stream."""
    part = part.replace("/", "_").replace("\0", "_")
    if windows:
        part = re.sub(r'[<>:"\\|?*\x01-\x1f]', "_", part).rstrip(". ") or "_"
        if part.split(".")[0].rstrip().lower() in _RESERVED:
            part = f"_{part}"
    return part if part not in ("", ".", "..") else "_"


class Existing:
    """What was there in the folders of outputs before a run came to them: one listing for each
    folder, a few kept."""

    def __init__(self) -> None:
        self._folders: OrderedDict[StorePath, dict[str, Stat]] = OrderedDict()

    def marked(self, target: StorePath) -> StorePath:
        """The target, with what is known of it.

        Raises:
            OutputError: the store does not answer.
        """
        folder = target.parent
        names = self._folders.pop(folder, None)
        if names is None:
            try:
                names = {
                    place.key: place.known
                    for place, is_dir in folder.list()
                    if not is_dir and place.known is not None
                }
            except OSError as exc:
                raise OutputError(
                    f"{folder} cannot be listed: {store_cause(exc)}", STORE_HINT
                ) from exc
        self._folders[folder] = names
        while len(self._folders) > 4:  # inputs come folder by folder
            self._folders.popitem(last=False)
        return dataclasses.replace(target, known=names.get(target.key), existed=target.key in names)
