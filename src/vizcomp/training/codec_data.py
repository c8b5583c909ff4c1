"""Pictures and photos that a codec learns from, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from vizcomp.datasets.photos import each_photo, find_photos, read_photos, split
from vizcomp.errors import InputError, SettingsError
from vizcomp.training import loop
from vizcomp.training.codec_settings import CodecTrainSettings
from vizcomp.training.pictures import read_pictures
from vizcomp.training.processes import Processes
from vizcomp.training.settings import split_list
from vizcomp.training.views import shifted_and_flipped

Pixels = npt.NDArray[np.uint8]

CROPS = 16  # from each photo in an epoch
IN_MEMORY = 1 << 30  # bytes of photos that are held; of more, a part that moves over the data
STAYS = 64  # steps that a photo of such a part stays
MOST_HELD = 20  # photos to validate on


class CodecData(Protocol):
    """Attributes:
    source: what the data were found as.
    skipped: (name, reason) of each that could not be used.
    per_epoch: images of an epoch.
    """

    source: str
    skipped: list[tuple[str, str]]
    per_epoch: int

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images (n, 3, H, W) in -1..1 of step `index` for this process, and their labels where
        there are any."""
        ...

    def samples(self, most: int) -> Pixels | Sequence[Pixels]:
        """Images that are trained on, for the context model: uint8 (N, H, W, 3), or photos of any
        sizes."""
        ...


class PictureSettings(Protocol):
    """What `PictureData` asks of a training's settings."""

    @property
    def data(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    @property
    def validation(self) -> float: ...

    @property
    def seed(self) -> int: ...

    @property
    def batch(self) -> int: ...


class PictureData:
    """Labelled pictures of the network's own size."""

    def __init__(self, settings: PictureSettings, side: int, processes: Processes) -> None:
        self._settings, self._processes = settings, processes
        self.pictures = read_pictures(
            Path(settings.data),
            side=side,
            exact=settings.exact,
            validation=settings.validation,
            seed=settings.seed,
            batch=settings.batch,
            device=processes.device,
        )
        self.source, self.skipped = self.pictures.source, list(self.pictures.skipped)
        self.per_epoch = len(self.pictures.train)

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        s, p = self._settings, self.pictures
        chosen = loop.batch_indices(
            index, count=len(p.train), batch=s.batch, seed=s.seed, processes=self._processes
        )
        chosen = p.train[chosen].to(p.images.device)
        images = shifted_and_flipped(p.images[chosen], 0)
        return images.float().div_(127.5).sub_(1), p.labels[chosen]

    def samples(self, most: int) -> Pixels:
        p = self.pictures
        chosen = p.train[:: max(1, len(p.train) // most)].to(p.images.device)
        return np.ascontiguousarray(p.images[chosen].permute(0, 2, 3, 1).cpu().numpy())


class PhotoData:
    """Crops of photos. More photos than memory holds are read again and again from the disk."""

    def __init__(self, settings: CodecTrainSettings, processes: Processes) -> None:
        self._settings, self._processes = settings, processes
        self.skipped: list[tuple[str, str]] = []
        found = find_photos([Path(path) for path in split_list(settings.data)])
        self._paths, apart = _kept_out(found, settings.held)
        self._most = 0
        whole = self._all_in_memory()
        count = len(self._paths) if whole is None else len(whole)
        share = 0.0 if apart else min(settings.validation, MOST_HELD / max(1, count))
        train, held = split(count, share, settings.seed)
        self._pool: list[torch.Tensor] = []
        self._window: dict[int, torch.Tensor | None] = {}
        if whole is None:
            self._train = [self._paths[i] for i in train.tolist()]
            self.held = list(self._read([self._paths[i] for i in held.tolist()]))
        else:
            self._train = []
            self._pool = [_tensor(whole[i]) for i in train.tolist()]
            self.held = [whole[i] for i in held.tolist()]
        if apart:
            self.held = read_photos(apart, min_side=settings.crop, on_skip=self._skip)
        self.source = f"{count} photos"
        self.per_epoch = len(train) * CROPS

    def _read(self, paths: Sequence[Path]) -> Iterator[Pixels]:
        return each_photo(paths, min_side=self._settings.crop, on_skip=self._skip)

    def _skip(self, name: str, reason: str) -> None:
        if (name, reason) not in self.skipped:  # of many, a photo is read more than once
            self.skipped.append((name, reason))

    def _all_in_memory(self) -> list[Pixels] | None:
        """All photos, where they fit."""
        photos: list[Pixels] = []
        size = 0
        for photo in self._read(self._paths):
            photos.append(photo)
            size += photo.nbytes
            if size > IN_MEMORY:
                self._most = len(photos)
                self.skipped.clear()
                return None
        if not photos:
            read_photos(self._paths, min_side=self._settings.crop)  # says why none can be used
        return photos

    def _photos(self, index: int) -> list[torch.Tensor]:
        """The photos to crop from at a step: all, or those of a part of the data, in an order that
        the seed draws.

        The part moves on by a quarter every `STAYS` steps. It depends on the step alone, so that a
        resumed run sees the same.
        """
        if not self._train:
            return self._pool
        count, epoch = min(self._most, len(self._train)), len(self._train)
        start = index // STAYS * max(1, count // 4)
        places = range(start, start + count)
        if (
            start not in self._window
            or len(self._window) != count
            or places[-1] not in self._window
        ):
            orders = {
                e: loop.epoch_order(epoch, self._settings.seed, e)
                for e in {places[0] // epoch, places[-1] // epoch}
            }
            before, self._window = self._window, {}
            for at in places:
                path = self._train[int(orders[at // epoch][at % epoch])]
                self._window[at] = (
                    before[at] if at in before else next(map(_tensor, self._read([path])), None)
                )
            self._pool = [photo for photo in self._window.values() if photo is not None]
        if not self._pool:
            raise InputError(
                f"none of {count} photos in a row can be used",
                f"the last one: {self.skipped[-1][1]}",
            )
        return self._pool

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        s = self._settings
        photos = self._photos(index)
        crops = []
        for _ in range(max(1, s.batch // self._processes.count)):
            photo = photos[int(torch.randint(0, len(photos), ()))]
            height, width = photo.shape[-2:]
            # photos come from cameras, screens and thumbnails: some crops are taken at half the
            # size
            side = (
                2 * s.crop
                if torch.rand(()) < s.smaller and min(height, width) >= 2 * s.crop
                else s.crop
            )
            y, x = (
                int(torch.randint(0, height - side + 1, ())),
                int(torch.randint(0, width - side + 1, ())),
            )
            crop = photo[:, y : y + side, x : x + side].float()
            crop = F.avg_pool2d(crop, 2) if side > s.crop else crop
            crops.append(crop.flip(-1) if torch.rand(()) < 0.5 else crop)
        images = torch.stack(crops).to(self._processes.device).div_(127.5).sub_(1)
        return images.contiguous(memory_format=torch.channels_last), None

    def samples(self, most: int) -> list[Pixels]:
        del most  # parts are cut from them, as many as are wanted
        return [photo.permute(1, 2, 0).numpy() for photo in self._photos(0)]


def _kept_out(paths: Sequence[Path], names: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The photos to train on, and those with one of the names, which are kept out.

    Raises:
        SettingsError: no photo has such a name, or all have.
    """
    if missing := sorted(set(names) - {path.stem for path in paths}):
        raise SettingsError(
            f"held: no photo is called {missing[0]}", "names are without folder and ending"
        )
    apart = [path for path in paths if path.stem in names]
    rest = [path for path in paths if path.stem not in names]
    if not rest:
        raise SettingsError("held: all photos are kept out", "leave some to train on")
    return rest, apart


def _tensor(photo: Pixels) -> torch.Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1)
