"""Names safe to print, causes of file errors in plain words, and where caches lie."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path

from vizcomp.errors import InputError


def printable(path: object) -> str:
    """A path as text that is safe to print: one line, valid UTF-8, no control or text-direction
    characters.

    `path` is a string, a path or a place in a store. Bytes that are no UTF-8 show as `\\xNN`,
    control characters as their Python escapes; any other name is unchanged.
    """
    text = path if isinstance(path, str) else str(path)
    if text.isprintable():
        return text
    return "".join(_printable_character(c) for c in text)


def _printable_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape carried through
        return f"\\x{code - 0xDC00:02x}"
    # Joiners and variation selectors belong to emoji and many scripts; what reorders a line does
    # not belong in a report.
    reorders = (
        code in (0x200E, 0x200F, 0x061C) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    )
    if reorders or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


def store_error(shown: str, exc: OSError) -> InputError:
    return InputError(f"{shown} cannot be read: {store_cause(exc)}", STORE_HINT)


def file_kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISDIR, "folder"),
    ):
        if test(mode):
            return name
    return "device"


_CAUSES = {
    errno.ENOSPC: ("no space left on the disk", "free some space, or choose another output folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another output folder"),
    errno.EACCES: ("permission denied", "check the permissions, or choose another output folder"),
    errno.EPERM: ("not permitted", "check the permissions, or choose another output folder"),
    errno.EROFS: ("the disk is read-only", "choose another output folder"),
    errno.ENAMETOOLONG: (
        "the name is too long",
        "shorten the file's name or the path of the output folder",
    ),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another output folder"),
    errno.EISDIR: ("there is a folder of that name", "choose another output folder"),
    errno.EEXIST: ("a part of its path is a file, not a folder", "choose another output folder"),
    errno.ELOOP: ("its links run in a circle", "choose another output folder"),
    errno.EMFILE: ("too many files are open", "run fewer jobs at once"),
    errno.EIO: ("the disk reports an error", "check the disk"),
}


def disk_cause(exc: BaseException) -> str:
    number = getattr(exc, "errno", None)
    if number in _CAUSES:
        return _CAUSES[number][0]
    return (getattr(exc, "strerror", None) or str(exc) or type(exc).__name__).lower()


def disk_hint(exc: BaseException) -> str:
    return _CAUSES.get(getattr(exc, "errno", None) or 0, ("", "choose another output folder"))[1]


STORE_HINT = "check the bucket, the credentials and the endpoint"


def store_cause(exc: BaseException) -> str:
    """What went wrong with a store, in one line."""
    text = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return " ".join(str(text).split())[:300]


def cache_folder() -> Path:
    """Where downloaded and added weights are: `VIZCOMP_CACHE`, or the user's cache folder. It may
    not exist yet."""
    if given := os.environ.get("VIZCOMP_CACHE"):
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("vizcomp"))
