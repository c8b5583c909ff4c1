"""Keywords of a call to the settings that they belong to."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import SettingsError

OF_RUNS = frozenset({"overwrite", "resume", "dry_run", "keep_dates", "labels"})
"""Settings of many files, which a single image in memory has no use for."""


def names_of(*kinds: type[Any], without: Collection[str] = ()) -> list[str]:
    """The fields of some dataclasses of settings."""
    return [
        field.name
        for kind in kinds
        for field in dataclasses.fields(kind)
        if field.name not in without
    ]


def check_names(
    call: str, given: Mapping[str, Any], known: Collection[str], *, elsewhere: Mapping[str, str]
) -> None:
    """Refuse what a call does not know.

    Args:
        call: its name.
        given: its keywords.
        known: their names.
        elsewhere: keywords of another call, and its name.

    Raises:
        TypeError: as Python does it for any other function, with a name that is near.
    """
    for name in given:
        if name in known:
            continue
        if name in elsewhere:
            raise TypeError(f"{call}() has no {name!r}: it is of {elsewhere[name]}()")
        near = difflib.get_close_matches(name, known, 1, 0.6)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(sorted(known))}"
        raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{hint}")


def djpeg_settings(
    call: str, settings: DjpegSettings | None, given: Mapping[str, Any]
) -> DjpegSettings:
    """The settings of a photo: ready-made ones, or those of the keywords.

    Raises:
        SettingsError: both, or a value out of its range.
    """
    mine = {name: value for name, value in given.items() if name in names_of(DjpegSettings)}
    if settings is None:
        return DjpegSettings(**mine)
    if not isinstance(settings, DjpegSettings):
        raise TypeError(
            f"{call}() takes DjpegSettings as its settings, not a {type(settings).__name__}"
        )
    if mine:
        raise SettingsError(f"`{next(iter(mine))}` and `settings` say the same", "give one of them")
    return settings


def batch_settings(given: Mapping[str, Any], **more: Any) -> BatchSettings:
    """The settings of a run from keywords; paths become text, lists tuples."""
    mine = {name: value for name, value in given.items() if name in names_of(BatchSettings)}
    for name in ("depth_maps", "masks", "labels"):
        if mine.get(name) is not None:
            mine[name] = str(mine[name])
    return BatchSettings(**mine, **more)


def with_signature(function: Any, *kinds: type[Any], without: Collection[str] = ()) -> Any:
    """The function, whose `**options` `help` shows one by one."""
    signature = inspect.signature(function)
    shown = [
        p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    have = {p.name for p in shown}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            if field.name not in have and field.name not in without:
                more = inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=field.type,
                )
                shown.append(more)
    function.__signature__ = signature.replace(parameters=shown)
    return function
