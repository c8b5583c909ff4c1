"""The photos of a fit: counted once each, split by their content, and remembered once they were
used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence

from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.place import cache_folder
from vizcomp.files.write import write_atomic
from vizcomp.photos.photo import read_photo

EXPLORE_SHARE = 0.3  # of the units; what orders settings needs fewer than what certifies them
UNITS = ("file", "folder")


@dataclasses.dataclass(frozen=True)
class Unit:
    """What is drawn independently: a photo, or a folder of photos that belong together.

    Attributes:
        digest: hash of the contents, hexadecimal.
        files: its distinct photos.
    """

    digest: str
    files: tuple[InputFile, ...]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Units in an order that only their contents decide.

    Attributes:
        units: all of them.
        duplicates: files that were left out since another has the same bytes.
        unread: files that cannot be read, each with its reason.
    """

    units: tuple[Unit, ...]
    duplicates: int
    unread: tuple[str, ...]


def read_sample(files: Iterable[InputFile], *, unit: str, max_pixels: int) -> Sample:
    """Files to units; a photo's bytes count once, in the first folder that has them.

    Raises:
        SettingsError: no such unit.
        InputError: no file can be read.
    """
    if unit not in UNITS:
        raise SettingsError(f"unknown unit {unit!r}", f"use `unit` {' or '.join(UNITS)}")
    seen: set[str] = set()
    groups: dict[str, list[tuple[str, InputFile]]] = {}
    duplicates, unread = 0, []
    for file in files:
        try:
            digest = hashlib.sha256(read_photo(file.path, max_pixels)).hexdigest()
        except VizcompError as exc:
            unread.append(exc.message)
            continue
        if digest in seen:
            duplicates += 1
            continue
        seen.add(digest)
        groups.setdefault(digest if unit == "file" else str(file.path.parent), []).append(
            (digest, file)
        )
    if not groups:
        raise InputError(
            "no photo of the sample can be read" + (f": {unread[0]}" if unread else ""),
            "give other photos",
        )
    units = []
    for members in groups.values():
        digests = sorted(digest for digest, _ in members)
        whole = (
            digests[0] if unit == "file" else hashlib.sha256("".join(digests).encode()).hexdigest()
        )
        units.append(Unit(whole, tuple(file for _, file in members)))
    units.sort(key=lambda one: hashlib.sha256(b"vizcomp fit" + one.digest.encode()).digest())
    return Sample(tuple(units), duplicates, tuple(unread))


def split(units: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """The explore part and the certify part."""
    explore = round(EXPLORE_SHARE * len(units))
    return list(units[:explore]), list(units[explore:])


def sample_digest(units: Sequence[Unit]) -> str:
    """12 hexadecimal digits that name a set of units."""
    return hashlib.sha256("".join(sorted(unit.digest for unit in units)).encode()).hexdigest()[:12]


class UsedPhotos:
    """The certify parts that earlier fits looked at, for the same systems; in the cache folder."""

    def __init__(self, systems: Sequence[str]) -> None:
        name = hashlib.sha256(json.dumps(sorted(systems)).encode()).hexdigest()[:16]
        self._path = cache_folder() / "fit" / f"{name}.json"

    def check(self, units: Sequence[Unit]) -> None:
        """Refuse units of which one was used: whoever tries again until it passes has no
        certificate.

        Raises:
            InputError: some were used.
        """
        used = self._read()
        again = sum(unit.digest in used for unit in units)
        if again:
            raise InputError(
                f"{again} of the {len(units)} photos to certify with were used by an earlier fit"
                " for these systems",
                "a new certificate needs photos that were not looked at; the earlier policy stays"
                " valid",
            )

    def add(self, units: Sequence[Unit]) -> None:
        """Remember units, before the first of them is looked at."""
        used = self._read() | {unit.digest for unit in units}
        write_atomic(self._path, json.dumps(sorted(used)).encode())

    def _read(self) -> set[str]:
        try:
            return set(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, TypeError) as exc:
            raise InputError(
                f"{self._path} cannot be read: {exc}",
                "remove it; what was used before is then forgotten",
            ) from exc
