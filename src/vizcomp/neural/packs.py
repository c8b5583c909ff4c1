"""Packs of many images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.errors import InputError, MissingExtraError, ModelError, WeightsMissingError
from vizcomp.files.read import map_file
from vizcomp.files.store import StorePath
from vizcomp.neural.arrays import Pixels, to_grey
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.find import find_model
from vizcomp.neural.tiling import BATCH
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.frame import rgb
from vizcomp.vzc import image as vzc
from vizcomp.vzc.packs import PackReader


class VzcPack:
    """A pack of images, read from a file or from bytes, decoded when asked for.

    Args:
        source: path of a .vzc pack, or its bytes.
        model: a codec's name or path; None: found by the pack's fingerprint.
        max_pixels: limit for each image.
        threads: as for `NeuralCodec.load`.
        allow_truncated: as for `PackReader`.

    The model may be in the pack itself (`encode --pack --with-model`): then it is used where no
    other file has it.

    `len`, indexing by number or name, and iteration give uint8 (H, W, 3) images, (H, W) where the
    source was grey.
    """

    def __init__(
        self,
        source: str | Path | bytes | StorePath,
        *,
        model: str | Path | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        threads: int = 0,
        allow_truncated: bool = False,
    ) -> None:
        self._source, self._model, self._max_pixels, self._threads = (
            source,
            model,
            max_pixels,
            threads,
        )
        self._allow_truncated = allow_truncated
        self._open()

    def _open(self) -> None:
        if isinstance(self._source, bytes):
            data: Any = self._source
        elif isinstance(self._source, StorePath):
            data = map_file(self._source, check=lambda head, name: vzc.kind(head))
        else:
            try:
                data = (
                    np.memmap(self._source, np.uint8, "r")
                    if Path(self._source).stat().st_size
                    else b""
                )
            except OSError as exc:
                raise InputError(
                    f"{self._source}: {exc.strerror or exc}", "give the path of a .vzc pack"
                ) from exc
        self.reader = PackReader(
            data, max_pixels=self._max_pixels, allow_truncated=self._allow_truncated
        )
        try:
            models = [self._model] if self._model is not None else []
            self.codec = find_model(self.reader.model, models, threads=self._threads)
        except WeightsMissingError:
            if not self.reader.has_model:
                raise
            self.codec = self._model_inside()

    def _model_inside(self) -> NeuralCodec:
        with tempfile.TemporaryDirectory(prefix="vizcomp-") as folder:
            path = Path(folder) / "model.safetensors"
            path.write_bytes(self.reader.model_file())
            codec = NeuralCodec.load(path, threads=self._threads)
        if codec.fingerprint != self.reader.model:
            raise ModelError(
                "the model in the pack is not the one that wrote it",
                "get the pack again from where it came",
            )
        return codec

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_source": self._source,
            "_model": self._model,
            "_max_pixels": self._max_pixels,
            "_threads": self._threads,
            "_allow_truncated": self._allow_truncated,
        }  # data loaders send packs to workers

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty where the pack has no labels."""
        return tuple(self.reader.classes)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: int | str) -> Pixels:
        index = self.reader.index_of(key) if isinstance(key, str) else range(len(self))[key]
        return self.batch([index])[0]

    def __iter__(self) -> Iterator[Pixels]:
        for start in range(0, len(self), BATCH):
            yield from self.batch(range(start, min(len(self), start + BATCH)))

    def batch(self, indices: Sequence[int], *, iterations: int | None = None) -> list[Pixels]:
        """The images with these numbers, decoded together where they are of one size; of at most so
        many iterations.

        Raises:
            FormatError: the block of one of them is damaged.
        """
        entries = [self.reader.entry(i) for i in indices]
        groups: dict[tuple[int, int, int], list[int]] = {}
        for at, entry in enumerate(entries):
            groups.setdefault((entry.height, entry.width, entry.iterations), []).append(at)
        out: list[Pixels] = [np.empty(0, np.uint8)] * len(entries)
        for (height, width, many), members in groups.items():
            payloads = [entries[at].payload for at in members]
            images = self.codec.decode_payloads(payloads, height, width, many, stop=iterations)
            for at, image in zip(members, images, strict=True):
                out[at] = to_grey(image) if entries[at].grey else image
        return out

    def label(self, index: int) -> int | None:
        """The number of an image's class, None where it has none."""
        return self.reader.label(index)

    def dataset(self, transform: Callable[[Any], Any] | None = None) -> Any:
        """A torch `Dataset` of (image, label): float32 (3, H, W) in 0..1 unless `transform` makes
        something else of the uint8 array; label -1 where there is none. A `DataLoader` fetches
        whole batches, which are decoded together.

        Raises:
            MissingExtraError: torch is not installed.
        """
        try:
            import torch
            from torch.utils.data import Dataset
        except ImportError as exc:
            raise MissingExtraError("torch, whose Dataset this is,", "train") from exc

        pack = self

        class PackDataset(Dataset):  # type: ignore[type-arg]
            def __len__(self) -> int:
                return len(pack)

            def __getitem__(self, index: int) -> tuple[Any, int]:
                return self.__getitems__([index])[0]

            def __getitems__(self, indices: list[int]) -> list[tuple[Any, int]]:
                images = pack.batch(indices)
                labels = [pack.label(i) for i in indices]
                return [
                    (self._made(im), -1 if la is None else la)
                    for im, la in zip(images, labels, strict=True)
                ]

            @staticmethod
            def _made(image: Pixels) -> Any:
                if transform is not None:
                    return transform(image)
                return torch.from_numpy(rgb(image).transpose(2, 0, 1).copy()).float() / 255

        return PackDataset()
