"""Messages in the words of the command line."""

from __future__ import annotations

import re

from vizcomp.files.place import printable

_SETTING = re.compile(r"(?<![^\s(])`([a-z][a-z0-9_]*)`(?=[\s,;:)]|\.?(?:\s|$))")


def in_flags(text: str) -> str:
    """A message whose settings are written as Python has them, `min_saving`, with the names of
    options, --min-saving.

    Below the command line nothing knows of options: errors and notices are read by those who call
    `vizcomp.compress` too.
    """
    return _SETTING.sub(lambda match: "--" + match[1].replace("_", "-"), text)


def in_safe_lines(text: str) -> str:
    """A message as a terminal may have it: names from files cannot hold sequences that change it,
    or hide what is said."""
    return "\n".join(printable(line) for line in in_flags(text).split("\n"))
