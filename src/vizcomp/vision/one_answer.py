"""Whether a system gave one answer for all photos: then that it gives it for the results too proves
nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

NOTHING = "nothing"
FEWEST = 3  # different photos; of fewer, one answer for all is no evidence


@dataclasses.dataclass
class Heard:
    """What one system said of some photos, one after the other; takes no memory for each.

    Attributes:
        photos: so many.
        answer: the first one's, as `gist` has it.
        one: all are as the first.
    """

    photos: int = 0
    answer: str = ""
    one: bool = True
    _different: set[Hashable] = dataclasses.field(default_factory=set)

    def add(self, answer: str, photo: Hashable) -> None:
        """An answer; what is equal as `photo` is the same photo again."""
        if not self.photos:
            self.answer = answer
        self.photos += 1
        self.one = self.one and answer == self.answer
        if len(self._different) < FEWEST:
            self._different.add(photo)

    @property
    def always(self) -> bool:
        """Whether one answer was given for photos enough."""
        return self.one and len(self._different) >= FEWEST


@dataclasses.dataclass
class Hearing:
    """`Heard` of several systems by their names."""

    systems: dict[str, Heard] = dataclasses.field(default_factory=dict)

    def add(self, answers: dict[str, str] | None, photo: Hashable) -> None:
        """What the systems said of a photo; None where nobody was asked."""
        for name, answer in (answers or {}).items():
            self.systems.setdefault(name, Heard()).add(answer, photo)

    def found(self) -> dict[str, dict[str, Any]]:
        """Of the systems with one answer for all photos, that `answer` and the number of
        `photos`."""
        return {
            name: {"answer": heard.answer, "photos": heard.photos}
            for name, heard in self.systems.items()
            if heard.always
        }


def about(name: str, answer: str, photos: int) -> str:
    """What to say of a system with one answer for all photos; 0: their number is not known."""
    every = f"all {photos:,} photos" if photos else "all photos"
    if answer == NOTHING:
        return (
            f"{name} gave an empty answer for {every}: that it does so for the"
            " results too proves nothing"
        )
    return (
        f"{name} gave the same answer for {every}, {answer}: that it does so for the"
        " results too proves nothing, unless all of them show that"
    )


def about_all(found: dict[str, dict[str, Any]]) -> list[str]:
    """The same of each system of `Hearing.found`."""
    return [about(name, one["answer"], one["photos"]) for name, one in found.items()]
