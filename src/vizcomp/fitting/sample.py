"""The photos of a fit: counted once each, split by their content, and remembered once they were
used."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.folders import group_of
from vizcomp.files.place import cache_folder
from vizcomp.files.write import write_atomic
from vizcomp.photos.photo import read_photo, size_in

UNITS = ("file", "folder")
BY = ("", "folder")
EXPLORED = "explored by "


@dataclasses.dataclass(frozen=True)
class Unit:
    """What is drawn independently: a photo, or a folder of photos that belong together.

    Attributes:
        digest: hash of the contents, hexadecimal.
        files: its distinct photos.
        digests: of each of them.
        group: the stratum that it belongs to, a name; "" where nobody asked for any.
    """

    digest: str
    files: tuple[InputFile, ...]
    digests: tuple[str, ...]
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Units in an order that only their contents decide.

    Attributes:
        units: all of them.
        duplicates: files that were left out since another has the same bytes.
        unread: files that cannot be read, each with its reason.
        sides: width and height of those whose header says them.
    """

    units: tuple[Unit, ...]
    duplicates: int
    unread: tuple[str, ...]
    sides: tuple[tuple[int, int], ...]


def read_sample(files: Iterable[InputFile], *, unit: str, max_pixels: int, by: str = "") -> Sample:
    """Files to units; a photo's bytes count once, in the first folder that has them.

    Args:
        by: "folder": the first folder below the input is a unit's stratum; "" for one stratum.

    Raises:
        SettingsError: no such unit or strata.
        InputError: no file can be read.
    """
    if unit not in UNITS:
        raise SettingsError(f"unknown `unit` {unit!r}", f"use {' or '.join(UNITS)}")
    if by not in BY:
        raise SettingsError(f"unknown strata {by!r}", "use `by` folder, or omit it")
    sides: list[tuple[int, int]] = []
    seen: set[str] = set()
    groups: dict[str, list[tuple[str, InputFile]]] = {}
    duplicates, unread = 0, []
    for file in files:
        try:
            data = read_photo(file.path, max_pixels)
        except VizcompError as exc:
            unread.append(exc.message)
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest in seen:
            duplicates += 1
            continue
        seen.add(digest)
        with contextlib.suppress(Exception):  # what is wrong with it is said where it is decoded
            sides.append(size_in(data))
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
        stratum = group_of(members[0][1]) if by else ""
        units.append(
            Unit(
                whole,
                tuple(file for _, file in members),
                tuple(digest for digest, _ in members),
                stratum,
            )
        )
    units.sort(key=lambda one: hashlib.sha256(b"vizcomp fit" + one.digest.encode()).digest())
    return Sample(tuple(units), duplicates, tuple(unread), tuple(sides))


def split(units: Sequence[Unit], explore: Callable[[int], int]) -> tuple[list[Unit], list[Unit]]:
    """The explore part and the certify part, each with its share of every stratum, in the units'
    own order.

    Args:
        explore: from how many units of a stratum there are to how many of them are explored.
    """
    counts = collections.Counter(unit.group for unit in units)
    left = {group: explore(count) for group, count in counts.items()}
    parts: tuple[list[Unit], list[Unit]] = ([], [])
    for unit in units:
        chosen = left[unit.group] > 0
        left[unit.group] -= chosen
        parts[not chosen].append(unit)
    return parts


def sample_digest(units: Sequence[Unit]) -> str:
    """12 hexadecimal digits that name a set of units."""
    return hashlib.sha256("".join(sorted(unit.digest for unit in units)).encode()).hexdigest()[:12]


class UsedPhotos:
    """The photos that earlier fits looked at for the same systems, each with the fit that did; in
    the cache folder."""

    def __init__(self, systems: Sequence[str]) -> None:
        name = hashlib.sha256(json.dumps(sorted(systems)).encode()).hexdigest()[:16]
        self._path = cache_folder() / "fit" / f"{name}.json"

    def fresh(self, units: Sequence[Unit]) -> list[Unit]:
        """The units that no fit looked at, to choose or to certify."""
        used = self._read()
        return [unit for unit in units if unit.digest not in used]

    def check(self, units: Sequence[Unit], run: str) -> None:
        """Refuse units of which one was used by another fit: whoever tries again until it passes
        has no certificate.

        Args:
            run: the fit that asks; what it used itself is its own.

        Raises:
            InputError: some were used.
        """
        used = self._read()
        again = [
            unit for unit in units if not used.get(unit.digest, run).startswith((run, EXPLORED))
        ]
        if again:
            raise InputError(
                f"{len(again)} of the {len(units)} photos to certify with were used by an earlier"
                " fit for these systems",
                "a new certificate needs photos that were not looked at; the earlier policy stays"
                " valid",
            )

    def begun(self, units: Sequence[Unit], run: str) -> bool:
        """Whether this very fit looked at its certify part before."""
        used = self._read()
        return any(used.get(unit.digest) == run for unit in units)

    def add(self, units: Sequence[Unit], run: str, *, explored: Sequence[Unit] = ()) -> None:
        """Remember units, before the first of them is looked at; and those that a choice was made
        on, where they are new."""
        used = dict.fromkeys((unit.digest for unit in explored), EXPLORED + run) | self._read()
        used |= dict.fromkeys((unit.digest for unit in units), run)
        write_atomic(self._path, json.dumps(used, sort_keys=True).encode())

    def _read(self) -> dict[str, str]:
        try:
            used = json.loads(self._path.read_bytes())
            # a list: of older versions
            return dict(used) if isinstance(used, dict) else dict.fromkeys(used, "")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as exc:
            raise InputError(
                f"{self._path} cannot be read: {exc}",
                "remove it; what was used before is then forgotten",
            ) from exc
