"""Photos that come from standard input or from a list of names, and results that go to one file or
to standard output."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from vizcomp.djpeg.settings import FORMATS
from vizcomp.errors import InputError, OutputError, SettingsError, TooLargeError
from vizcomp.files.find import EXTENSIONS, InputFile, OnProblem, find_inputs, names_from
from vizcomp.files.names import is_folder, is_there
from vizcomp.files.place import disk_cause, printable
from vizcomp.files.store import AnyPath, StorePath
from vizcomp.photos.formats import SUFFIXES
from vizcomp.photos.photo import photo_limit
from vizcomp.shards.shard import SHARDS

STREAM = "-"
STANDARD_INPUT = "standard input"
MOST_LIST = 1 << 30  # bytes of a list of names


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the photos of a run come from, and where the results go.

    Attributes:
        names: files, folders and patterns.
        piped: the photo that came from standard input, as a file of its own; or None.
        folder: of the results.
        target: the only result, where one file was named or standard output; else None.
        to_output: that result goes to standard output in the end.
    """

    names: tuple[str, ...]
    piped: InputFile | None
    folder: AnyPath
    target: AnyPath | None = None
    to_output: bool = False

    @property
    def writes_report(self) -> bool:
        """Whether there is a folder in which a report has its place."""
        return self.target is None

    def files(self, report: OnProblem | None = None) -> Iterator[InputFile]:
        """The photos.

        Raises:
            InputError: as `find_inputs`.
            SettingsError: there are several, and one file for them.
        """
        exclude = self.folder if self.target is None else None
        files = (
            find_inputs(self.names, exclude=exclude, report=report)
            if self.names or self.piped is None
            else iter(())
        )
        if self.piped is not None:
            files = itertools.chain([self.piped], files)
        if self.target is None:
            return files
        first = list(itertools.islice(files, 2))
        if len(first) > 1:
            where = "standard output" if self.to_output else printable(self.target)
            raise SettingsError(
                f"`output` is one file, {where}, but the inputs are several",
                "name a folder, or one photo",
            )
        return iter(first)

    def check_format(self, name: str) -> None:
        """Whether the file that was named may hold a format.

        Raises:
            SettingsError: its suffix is that of another one, or the format is chosen later.
        """
        if self.target is None or self.to_output:
            return
        suffix = self.target.suffix.lower()
        if suffix in SHARDS:
            return
        shown = printable(self.target)
        if name == "auto":
            raise SettingsError(
                f"`format` auto chooses the suffix, and {shown} has one",
                "name a folder, or one format",
            )
        fits = SUFFIXES[name]
        if suffix not in fits:
            other = next((f for f in FORMATS[:-1] if suffix in SUFFIXES[f]), "")
            raise SettingsError(
                f"{shown} is no name of a file of `format` {name}",
                f"call it {self.target.stem}{fits[0]}"
                + (f", or use `format` {other}" if other else ""),
            )

    def write_to(self, stream: BinaryIO) -> None:
        """The result, to standard output."""
        assert isinstance(self.target, Path)
        stream.write(self.target.read_bytes())
        stream.flush()


@contextlib.contextmanager
def planned(
    inputs: Sequence[str],
    output: AnyPath,
    *,
    standard_input: BinaryIO,
    files_from: str = "",
    replace: bool = False,
    max_pixels: int,
) -> Iterator[Plan]:
    """What was asked for, as a plan; what comes from standard input lies in a file until the
    context ends.

    Args:
        inputs: as the user gave them; "-" is a photo from standard input.
        output: a folder; a file, where its suffix is that of a photo (or of a shard) and there is
            no folder of that name; "-" is standard output.
        files_from: a file with names, one a line or separated by NUL bytes, or "-" for standard
            input; "" for none.
        replace: a file that is there may be replaced.
        max_pixels: of the photo from standard input.

    Raises:
        SettingsError: standard input is asked for twice.
        InputError: it holds nothing, or too much; the list cannot be read.
        OutputError: the file is there already.
    """
    names = [name for name in inputs if name != STREAM]
    if STREAM in inputs and files_from == STREAM:
        raise SettingsError(
            "standard input cannot be a photo and a list of names", "name a file with the list"
        )
    if files_from:
        names += _listed(files_from, standard_input)
        if not names:
            raise InputError(f"no name in {_shown(files_from)}", "it holds one name a line")
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vizcomp-")))
        piped = None
        if STREAM in inputs:
            path = scratch / "stdin"
            path.write_bytes(_photo_from(standard_input, photo_limit(max_pixels)))
            piped = InputFile(path, PurePath("stdin"), STANDARD_INPUT)
        if str(output) == STREAM:
            yield Plan(tuple(names), piped, scratch, scratch / "stdout.jpg", to_output=True)
            return
        if not _is_file(output):
            yield Plan(tuple(names), piped, output)
            return
        if not replace and is_there(output):
            raise OutputError(f"{printable(output)} exists already", "`overwrite` replaces it")
        yield Plan(tuple(names), piped, output.parent, output)


def _is_file(output: AnyPath) -> bool:
    """Whether a place is meant as a file."""
    ends_as_folder = isinstance(output, StorePath) and output.key.endswith("/")
    return (
        not ends_as_folder
        and output.suffix.lower() in (*EXTENSIONS, ".jxl", *SHARDS)
        and not is_folder(output)
    )


def _shown(name: str) -> str:
    return STANDARD_INPUT if name == STREAM else printable(name)


def _listed(name: str, standard_input: BinaryIO) -> list[str]:
    try:
        if name == STREAM:
            data = standard_input.read(MOST_LIST + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MOST_LIST + 1)
    except OSError as exc:
        raise InputError(
            f"{_shown(name)} cannot be read: {disk_cause(exc)}", "name a file with one name a line"
        ) from exc
    if len(data) > MOST_LIST:
        raise TooLargeError(f"{_shown(name)} is too long for a list of names", "split it")
    return names_from(data)


def _photo_from(stream: BinaryIO, most: int) -> bytes:
    data = stream.read(most + 1)
    if not data:
        raise InputError(f"{STANDARD_INPUT} is empty", "pipe a photo into it")
    if len(data) > most:
        raise TooLargeError(
            f"{STANDARD_INPUT} holds more than a picture of the allowed size",
            "raise the limit with `max_pixels`",
        )
    return data
