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
        SettingsError: it is no system.
    """
    if asked is None:
        return ()
    several: Iterable[Any] = [asked] if isinstance(asked, str | System) or not isinstance(asked, Iterable) else asked
    names = []
    for each in several:
        if isinstance(each, str):
            names.append(each)
        elif isinstance(each, System):
            names.append(_free_name(each, given))
        else:
            raise SettingsError(
                f"`{setting}` is of the type {type(each).__name__}, which is no vision system",
                "give a name as 'text' or 'model.onnx', vizcomp.System(function, kind=...), or a list of these",
            )
    return tuple(dict.fromkeys(names))


def _free_name(system: System, given: dict[str, System]) -> str:
    name, number = system.name, 1
    while given.setdefault(name, system) is not system:
        number += 1
        name = f"{system.name}-{number}"
    return name
