"""The settings of each photo of a run: the same for all, or those of the folder it lies in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vizcomp.batch.judges import check_guides, uncalibrated_guides
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.formats import check_formats
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError
from vizcomp.files.find import InputFile
from vizcomp.files.folders import group_of
from vizcomp.files.names import OutputNames
from vizcomp.files.store import AnyPath
from vizcomp.shards.shard import is_shard


class Chosen:
    """The settings of each photo.

    Args:
        settings: of all photos; where there are some by folder, what a run has beside them.
        by_folder: settings by the name of a folder (`files.folders.group_of`); None: one for all.

    Attributes:
        every: all settings that a photo may have.
    """

    def __init__(
        self, settings: DjpegSettings, by_folder: Mapping[str, DjpegSettings] | None = None
    ) -> None:
        self._settings, self._by_folder = settings, by_folder
        self.every = (settings,) if by_folder is None else tuple(dict.fromkeys(by_folder.values()))
        self._names: dict[str, OutputNames] = {}

    def of(self, file: InputFile) -> DjpegSettings:
        """A photo's settings; of one that has none, those of the run."""
        if self._by_folder is None:
            return self._settings
        return self._by_folder.get(group_of(file), self._settings)

    def check(self, file: InputFile) -> None:
        """Refuse a photo of a folder without settings: none are guessed.

        Raises:
            InputError: there are none for it.
        """
        if self._by_folder is not None and group_of(file) not in self._by_folder:
            raise InputError(
                f"there is no policy for its folder, {group_of(file)}",
                f"there is one for {', '.join(self._by_folder)}",
            )

    def photos(self, files: Iterable[InputFile]) -> Iterator[InputFile]:
        """The same files; shards have one setting for all that is in them.

        Raises:
            InputError: a shard comes where settings are by folder.
        """
        for file in files:
            if self._by_folder is not None and is_shard(file.path):
                raise InputError(
                    f"{file.shown} is a shard, and settings by folder are for photos",
                    "give one policy.toml for it",
                )
            yield file

    def path_for(self, file: InputFile, output: AnyPath) -> AnyPath:
        """Where a photo's result goes below a folder, by the suffix of its format."""
        suffix = self.of(file).suffix
        return self._names.setdefault(suffix, OutputNames(output, suffix)).path_for(file)

    def checked(self, batch: BatchSettings) -> list[str]:
        """Who guides and judges, with fingerprints.

        Raises:
            VizcompError: what no photo can do without is missing.
        """
        identities = [one for each in self.every for one in check_guides(each, batch)]
        for each in self.every:
            check_formats(each)
        return list(dict.fromkeys(identities))

    def notices(self) -> tuple[str, ...]:
        """What a user should know of the settings."""
        return tuple(
            dict.fromkeys(text for each in self.every for text in uncalibrated_guides(each))
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON types: all that decides what the results hold."""
        if self._by_folder is None:
            return self._settings.to_dict()
        return {"by_folder": {name: one.to_dict() for name, one in self._by_folder.items()}}
