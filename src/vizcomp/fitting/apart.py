"""A fit for each folder of a sample, with statements that hold together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.files.folders import group_of
from vizcomp.fitting.asked import FitSettings
from vizcomp.fitting.policy import percent
from vizcomp.fitting.result import Fitted
from vizcomp.fitting.run import fit
from vizcomp.vision.system import System


@dataclasses.dataclass(frozen=True)
class Apart:
    """Fits of folders.

    Attributes:
        fits: by folder.
        notices: folders that have no certificate, each with its reason.
    """

    fits: dict[str, Fitted]
    notices: tuple[str, ...]


def fit_apart(
    photos: Iterable[InputFile] | Sequence[str | Path],
    systems: str | System | Sequence[str | System],
    *,
    on_progress: Callable[[str], None] = lambda text: None,
    **asked: Any,
) -> Apart:
    """A fit for each folder below the input, each with a setting of its own.

    All statements hold together with the confidence that is asked for: those of disjoint samples
    are independent, so each of m folders has the m-th root of it (Sidak, Journal of the American
    Statistical Association 62, 1967).

    Args:
        photos, systems, on_progress, asked: as `vizcomp.fitting.run.fit`, without `by`.

    Raises:
        SettingsError: `by` or `unit` contradict it, or as `fit`.
        InputError: no folder has a certificate; or photos lie in one folder alone.
    """
    settings = FitSettings(**asked)
    if settings.unit == "folder":
        raise SettingsError(
            "`each` and `unit` folder contradict each other",
            "a folder is either what is drawn, as a clip, or where photos are drawn from, as a"
            " camera",
        )
    listed: list[Any] = [photos] if isinstance(photos, str | Path) else list(photos)
    given = bool(listed) and all(isinstance(one, InputFile) for one in listed)
    folders: dict[str, list[InputFile]] = {}
    for file in listed if given else find_inputs(listed):
        folders.setdefault(group_of(file), []).append(file)
    if len(folders) < 2:
        raise InputError(
            "all photos lie in one folder: there is nothing to tell apart",
            "give the folder that holds one folder for each camera or site, or omit `each`",
        )
    budget = settings.budget / len(folders) if settings.budget else None
    more = asked | {"by": "", "budget": budget}
    more["confidence"] = settings.confidence ** (1 / len(folders))
    fits: dict[str, Fitted] = {}
    failed: list[tuple[str, InputError]] = []
    for name in sorted(folders):
        try:
            fits[name] = fit(
                folders[name],
                systems,
                on_progress=lambda text, name=name: on_progress(f"{name}: {text}"),  # type: ignore[misc]
                **more,
            )
        except InputError as exc:
            failed.append((name, exc))
    if not fits:
        name, first = failed[0]
        raise InputError(f"no folder has a certificate; {name}: {first.message}", first.hint)
    notices = [f"no policy for {name}: {error.message}; {error.hint}" for name, error in failed]
    alone, together = percent(more["confidence"]), percent(settings.confidence)
    notices.append(
        f"each of {len(folders)} folders is certified with {alone} confidence, so that all hold"
        f" together with {together}"
    )
    return Apart(fits, tuple(notices))
