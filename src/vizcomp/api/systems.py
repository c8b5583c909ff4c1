"""Vision systems that a caller names or hands over as objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vizcomp.errors import SettingsError
from vizcomp.vision.system import System


def by_name(asked: Any, setting: str, given: dict[str, System]) -> tuple[str, ...]:
    """Names of the systems asked for; those that came as objects are put into `given`.

    Args:
        asked: None, a name, an object that is a `System`, or several of these.
        setting: what it is called in messages.
        given: object by name.

    Raises:
        SettingsError: it is no system, or two have one name.
    """
    if asked is None:
        return ()
    several: Iterable[Any] = (
        [asked] if isinstance(asked, str | System) or not isinstance(asked, Iterable) else asked
    )
    names = []
    for each in several:
        if isinstance(each, str):
            names.append(each)
            continue
        if not isinstance(each, System):
            raise SettingsError(
                f"`{setting}` is of the type {type(each).__name__}, which is no vision system",
                "give a name as 'text' or 'model.onnx', vizcomp.System(function, kind=...), or a"
                " list of these",
            )
        if given.setdefault(each.name, each) is not each:
            raise SettingsError(
                f"two systems have the name {each.name!r}",
                "give one of them another: System(..., name=...)",
            )
        names.append(each.name)
    return tuple(dict.fromkeys(names))
