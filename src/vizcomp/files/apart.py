"""Whether a folder of outputs is apart from the inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vizcomp.errors import OutputError
from vizcomp.files.place import printable
from vizcomp.files.store import AnyPath, StorePath, is_url, parse_place


def check_apart(inputs: Sequence[str | Path], output: AnyPath, *, suffix: str = "") -> None:
    """Refuse a folder of outputs that is an input, or lies in one: a later run would take results
    for photos.

    Args:
        inputs: as `find.find_inputs` takes them; of a pattern, the part without wildcards.
        output: the folder of the outputs.
        suffix: of outputs that keep their inputs' stems; a named file of that suffix must not lie
            in `output` itself.

    Raises:
        OutputError: with the input that holds it.
    """
    for item in (os.fspath(each) for each in inputs):
        if "\0" in item:
            continue  # said when it is opened
        for folder in _folders(item, suffix):
            if _holds(folder, output, exactly=folder != item and not _has_wildcards(item)):
                where = "is" if _holds(folder, output, exactly=True) else "lies in"
                text = (
                    f"the output folder {printable(output)} {where} the input {printable(folder)}"
                )
                raise OutputError(text, "choose another `output`, outside of it")


def _has_wildcards(item: str) -> bool:
    return any(c in item for c in "*?[")


def _folders(item: str, suffix: str) -> Iterator[str]:
    """The folder that an input is, or that it is searched in."""
    if is_url(item):
        place = parse_place(item)
        if isinstance(place, StorePath) and not (place.suffix or _has_wildcards(item)):
            yield item
        return
    if os.path.isdir(item):
        yield item
    elif os.path.isfile(item):
        if suffix and item.lower().endswith(suffix):
            yield os.path.dirname(item) or "."
    elif _has_wildcards(item):
        parts = Path(item).parts
        fixed = next(i for i, part in enumerate(parts) if _has_wildcards(part))
        yield os.path.join(*parts[:fixed]) if fixed else "."


def _holds(folder: str, output: AnyPath, *, exactly: bool) -> bool:
    if isinstance(output, StorePath) or is_url(folder):
        place = parse_place(folder) if is_url(folder) else None
        if not isinstance(output, StorePath) or not isinstance(place, StorePath):
            return False
        above, below = str(place).rstrip("/"), str(output).rstrip("/")
        return below == above or (not exactly and below.startswith(above + "/"))
    above, below = os.path.realpath(folder), os.path.realpath(output)
    return below == above or (not exactly and below.startswith(os.path.join(above, "")))
