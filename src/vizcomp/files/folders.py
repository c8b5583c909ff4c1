"""The folder that a file of a tree belongs to, as that of a camera or a site."""

from __future__ import annotations

from pathlib import PurePath

from vizcomp.files.find import InputFile
from vizcomp.files.place import printable


def group_of(file: InputFile) -> str:
    """The first folder below the one that was given, or that folder itself."""
    parts = file.relative.parts
    return (
        printable(PurePath(parts[0]))
        if len(parts) > 1
        else printable(PurePath(file.path.parent.name or "."))
    )
