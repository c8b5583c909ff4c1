"""Files, folders and patterns to the photos that they name."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path, PurePath, PurePosixPath

from vizcomp.errors import InputError
from vizcomp.files import store
from vizcomp.files.place import disk_cause, file_kind, printable, store_error
from vizcomp.files.store import AnyPath, StorePath, is_url, parse_place, walk

EXTENSIONS: frozenset[str] = frozenset(
    {
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".mpo",
            ".png",
            ".apng",
            ".webp",
            ".avif",
            ".avifs",
            ".heic",
            ".heif",
            ".hif",
        ),
        *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""Lower-case suffixes that count as photos when a folder is walked."""

SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",
        "lost+found",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "__macosx",
    }
)
"""Folders, in lower case, that disks and storage boxes put beside a user's own."""

OnProblem = Callable[[InputError], None]

READABLE = "readable are JPEG, PNG, WebP, AVIF, JPEG XL, HEIC, TIFF, BMP, GIF and PPM"


@dataclasses.dataclass(frozen=True)
class InputFile:
    """One photo to read.

    Attributes:
        path: as it is to be opened.
        relative: path below the folder it was found under, file name included; the name alone for a
            single file.
        shown: `path` for people and reports, safe to print; made from `path` where it is not given.
    """

    path: AnyPath
    relative: PurePath
    shown: str = ""

    def __post_init__(self) -> None:
        if not self.shown:
            object.__setattr__(self, "shown", printable(self.path))


def find_inputs(
    inputs: Sequence[str | Path],
    *,
    exclude: AnyPath | None = None,
    report: OnProblem | None = None,
    extensions: frozenset[str] = EXTENSIONS,
    what: str = "photo",
    may_be_none: bool = False,
) -> Iterator[InputFile]:
    """The photos (or other files) that files, folders and glob patterns name, each once, in the
    order given.

    A folder is walked recursively: its files by name, then its sub-folders by name; hidden ones and
    those of systems (`SYSTEM_FOLDERS`) are left out, linked folders are followed once, and only
    regular files with a suffix of `extensions` count. A file that is named is taken whatever its
    suffix. A name that exists is never read as a pattern. In a pattern, `**` stands for any number
    of folders. The same file by two ways (a link, a relative path, its folder) comes once, by the
    first of them.

    Args:
        inputs: files, folders or patterns.
        exclude: a folder (of outputs) that is not walked where it lies below an input.
        report: is told of folders that cannot be read and links that lead nowhere; they are passed
            over.
        extensions: lower-case suffixes that count when a folder is walked.
        what: what such a file is called in messages.
        may_be_none: folders without a photo are no error.

    Raises:
        InputError: at once, before the first photo: an input is missing, is neither file nor
            folder, a pattern matches nothing, or there is no photo at all.
    """
    if not inputs:
        raise InputError("no input given", f"name {what}s, folders or patterns")
    finder = _Finder(exclude, report, extensions, may_be_none=may_be_none)
    sources = [finder.source(os.fspath(item)) for item in inputs]
    files = itertools.chain.from_iterable(sources)
    first = next(files, None)
    if first is None and may_be_none:
        return iter(())
    if first is None:
        named = ", ".join(printable(item) for item in inputs[:3]) + (
            " ..." if len(inputs) > 3 else ""
        )
        readable = (
            READABLE
            if extensions is EXTENSIONS
            else f"folders are searched for {' and '.join(sorted(extensions))}"
        )
        raise InputError(
            f"no {what} found in {named}",
            f"{readable}; other suffixes are taken where the file itself is named",
        )
    return itertools.chain([first], files)


_BRACES = re.compile(r"\{(?:(\d{1,9})\.\.(\d{1,9})|([^{},]*(?:,[^{},]*)+))\}")
MOST_NAMES = 1_000_000  # of one pattern with braces


def expanded(pattern: str) -> list[str]:
    """The names that braces stand for: `{00..99}` for numbers of as many digits, `{a,b}` for words;
    a shell does the same.

    Raises:
        InputError: there are more than `MOST_NAMES`.
    """
    names = [pattern]
    while any(_BRACES.search(name) for name in names):
        longer: list[str] = []
        for name in names:
            longer += _first_expanded(name)
            if len(longer) > MOST_NAMES:
                raise InputError(
                    f"{printable(pattern)} stands for more than {MOST_NAMES:,} names",
                    "name fewer at a time",
                )
        names = longer
    return names


def _first_expanded(name: str) -> list[str]:
    match = _BRACES.search(name)
    if match is None:
        return [name]
    first, last, words = match.groups()
    if words is not None:
        parts = words.split(",")
    else:
        low, high = int(first), int(last)
        if abs(high - low) >= MOST_NAMES:
            raise InputError(
                f"{printable(name)} stands for more than {MOST_NAMES:,} names",
                "name fewer at a time",
            )
        width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
        numbers = range(low, high + 1) if low <= high else range(low, high - 1, -1)
        parts = [str(number).zfill(width) for number in numbers]
    return [name[: match.start()] + part + name[match.end() :] for part in parts]


def names_from(text: bytes) -> list[str]:
    """The names in a list of files: one a line, or separated by NUL bytes where the list holds any;
    empty ones are left out."""
    parts = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [os.fsdecode(part) for part in parts if part.strip()]


def count_inputs(
    inputs: Sequence[str | Path],
    *,
    exclude: AnyPath | None = None,
    extensions: frozenset[str] = EXTENSIONS,
) -> int:
    """About how many files `find_inputs` will give, found without remembering them: one by two ways
    counts twice.

    Raises:
        InputError: as `find_inputs`.
    """
    finder = _Finder(exclude, None, extensions, remember=False)
    return sum(1 for item in inputs for _ in finder.source(os.fspath(item)))


class _Finder:
    """One search: what was seen already is remembered by 16 bytes a file, not by its path."""

    def __init__(
        self,
        exclude: AnyPath | None,
        report: OnProblem | None,
        extensions: frozenset[str],
        *,
        remember: bool = True,
        may_be_none: bool = False,
    ) -> None:
        self._may_be_none = may_be_none
        self._remember = remember
        self._extensions = extensions
        self._excluded = exclude
        self._exclude = os.path.realpath(exclude) if isinstance(exclude, Path) else None
        self._report = report
        self._seen: set[bytes] = set()

    def source(self, item: str) -> Iterator[InputFile]:
        if "\0" in item:
            raise InputError(f"{printable(item)} is no file name", "it holds a NUL character")
        if is_url(item):
            if (several := expanded(item)) != [item]:
                return itertools.chain.from_iterable([self.source(each) for each in several])
            place = parse_place(item)
            if isinstance(place, StorePath):
                return self._stored(place)
            item = str(place)
        try:
            mode = os.stat(item).st_mode
        except (FileNotFoundError, NotADirectoryError) as exc:
            if (several := expanded(item)) != [item]:
                return itertools.chain.from_iterable([self.source(each) for each in several])
            if any(c in item for c in "*?["):
                return self._pattern(item)
            hint = "it is a link that leads nowhere" if os.path.islink(item) else "check the path"
            raise InputError(f"{printable(item) or 'the empty name'} does not exist", hint) from exc
        except OSError as exc:
            raise InputError(
                f"{printable(item)} cannot be opened: {disk_cause(exc)}",
                "check the path and its permissions",
            ) from exc
        path = Path(item)
        if stat.S_ISDIR(mode):
            try:
                os.scandir(item).close()
            except OSError as exc:
                raise InputError(
                    f"the folder {printable(item)} cannot be read: {disk_cause(exc)}",
                    "check its permissions",
                ) from exc
            return self._walk(item, PurePath(), set())
        if not stat.S_ISREG(mode):
            raise InputError(
                f"{printable(item)} is a {file_kind(mode)}, not a file",
                "name a file, a folder or a pattern",
            )
        return self._file(path, PurePath(path.name), os.path.realpath(item))

    def _stored(self, place: StorePath) -> Iterator[InputFile]:
        """An object, the objects below a prefix, or those that a pattern matches."""
        shown = printable(place)
        try:
            if place.key and not place.key.endswith("/") and place.exists():
                return self._file(place, PurePosixPath(place.name), str(place))
            if any(c in place.key for c in "*?["):
                spelled = re.search(r"\.\w+$", place.name) is not None
                matches = (
                    (p, r)
                    for p, r in store.matches(place)
                    if spelled or p.suffix.lower() in self._extensions
                )
            else:
                exclude = self._excluded if isinstance(self._excluded, StorePath) else None
                matches = (
                    (p, r) for p, r in walk(place, exclude) if p.suffix.lower() in self._extensions
                )
                if not place.is_dir():
                    raise InputError(f"{shown} does not exist", "check the bucket and the key")
        except OSError as exc:
            raise store_error(shown, exc) from exc
        return self._listed(matches, shown)

    def _listed(
        self, matches: Iterator[tuple[StorePath, PurePosixPath]], shown: str
    ) -> Iterator[InputFile]:
        try:
            for place, relative in matches:
                yield from self._file(place, relative, str(place))
        except OSError as exc:
            raise store_error(shown, exc) from exc

    def _file(self, path: AnyPath, relative: PurePath, real: str) -> Iterator[InputFile]:
        if not self._remember:
            yield InputFile(path, relative)
            return
        key = blake2b(os.fsencode(real), digest_size=16).digest()
        if key not in self._seen:
            self._seen.add(key)
            yield InputFile(path, relative)

    def _walk(self, folder: str, relative: PurePath, above: set[str]) -> Iterator[InputFile]:
        """Photos below `folder`; `above` holds the real paths of the folders entered already (links
        may form loops)."""
        stack = [(folder, relative)]
        # it was there when the run began
        if not relative.parts and not os.path.isdir(folder or "."):
            yield InputFile(Path(folder), PurePath(os.path.basename(folder)))
            return
        while stack:
            here, below = stack.pop()
            real = os.path.realpath(here)
            if real in above:
                continue
            above.add(real)
            files, folders = self._listing(here)
            # it was there when its parent was listed
            if not files and not folders and not os.path.lexists(here or "."):
                yield InputFile(Path(here), below)
                continue
            for name in files:
                if os.path.splitext(name)[1].lower() in self._extensions:
                    path = os.path.join(here, name)
                    target = (
                        os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)
                    )
                    yield from self._file(Path(path), below / name, target)
            stack.extend((os.path.join(here, name), below / name) for name in reversed(folders))

    def _listing(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the regular files and of the folders in a folder, sorted; not hidden, not
        excluded."""
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(folder or ".") as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    try:
                        if entry.is_dir():
                            if entry.name.lower() in SYSTEM_FOLDERS:
                                continue
                            if (
                                self._exclude is None
                                or os.path.realpath(entry.path) != self._exclude
                            ):
                                folders.append(entry.name)
                        elif entry.is_file():
                            files.append(entry.name)
                        elif (
                            entry.is_symlink()
                            and os.path.splitext(entry.name)[1].lower() in self._extensions
                        ):
                            self._tell(
                                InputError(
                                    f"{printable(entry.path)} is a link that leads to no file",
                                    "it was left out",
                                )
                            )
                    except OSError as exc:
                        self._tell(
                            InputError(
                                f"{printable(entry.path)} cannot be read: {disk_cause(exc)}",
                                "it was left out",
                            )
                        )
        except OSError as exc:
            self._tell(
                InputError(
                    f"the folder {printable(folder)} cannot be read: {disk_cause(exc)}",
                    "it was left out",
                )
            )
        return sorted(files), sorted(folders)

    def _tell(self, problem: InputError) -> None:
        if self._report is not None:
            self._report(problem)

    def _pattern(self, pattern: str) -> Iterator[InputFile]:
        # The look ahead has a memory of its own: what it finds may belong to an earlier input.
        if (
            not self._may_be_none
            and next(_Finder(self._excluded, None, self._extensions)._matches(pattern), None)
            is None
        ):
            raise InputError(
                f"nothing matches {printable(pattern)}",
                "quote patterns, and check the path before the wildcards",
            )
        return self._matches(pattern) if self._may_be_none else self._matched_once(pattern)

    def _matched_once(self, pattern: str) -> Iterator[InputFile]:
        """What a pattern names; the pattern itself where all that it named when the run began is
        gone."""
        nothing = True
        for file in self._matches(pattern):
            nothing = False
            yield file
        if (
            nothing
            and next(_Finder(self._excluded, None, self._extensions)._matches(pattern), None)
            is None
        ):
            yield InputFile(Path(pattern), PurePath(os.path.basename(pattern)))

    def _matches(self, pattern: str) -> Iterator[InputFile]:
        """Photos that a pattern names; below the part of it without wildcards the tree is kept."""
        parts = Path(pattern).parts
        fixed = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
        root = os.path.join(*parts[:fixed]) if fixed else ""
        # A pattern that spells out a suffix means it; `*` alone means photos.
        spelled = re.search(r"\.\w+$", parts[-1]) is not None
        return self._matched(self._matching(root, PurePath(), parts[fixed:], set()), spelled)

    def _matched(
        self, matches: Iterator[tuple[str, PurePath, bool]], spelled: bool
    ) -> Iterator[InputFile]:
        entered: set[str] = set()
        for path, relative, is_folder in matches:
            if is_folder:
                yield from self._walk(path, relative, entered)
            elif spelled or os.path.splitext(path)[1].lower() in self._extensions:
                yield from self._file(Path(path), relative, os.path.realpath(path))

    def _matching(
        self, folder: str, relative: PurePath, parts: tuple[str, ...], above: set[str]
    ) -> Iterator[tuple[str, PurePath, bool]]:
        """(path, path below the root, whether it is a folder) of all that matches `parts` in
        `folder`."""
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
                yield from self._matching(
                    os.path.join(folder, name), relative / name, parts, above | {real}
                )
            return
        files, folders = self._listing(folder)
        # a plain name after a wildcard; may be hidden, since it is spelled out
        if not any(c in head for c in "*?["):
            target = os.path.join(folder, head)
            files, folders = (
                ([head] if os.path.isfile(target) else []),
                ([head] if os.path.isdir(target) else []),
            )
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
