"""A model by its fingerprint, and the decoding of a file by the right one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vizcomp.errors import ModelError, WeightsMissingError
from vizcomp.neural.codec import Decoded, NeuralCodec
from vizcomp.neural.models import MODELS
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.vzc import image as vzc
from vizcomp.weights import cache, table


def find_model(
    fingerprint: bytes, models: Sequence[str | Path] = (), *, threads: int = 0
) -> NeuralCodec:
    """The codec with a fingerprint, among the given ones, the bundled ones, and those in the cache
    folder.

    Args:
        threads: as for `NeuralCodec.load`.

    Raises:
        WeightsMissingError: none has it.
        ModelError: a given file is no codec.
    """
    for name in models:
        codec = _loaded(str(name), threads)
        if codec.fingerprint == fingerprint:
            return codec
    others: list[str] = [
        *MODELS,
        *(str(p) for p in sorted(cache.model_folder().glob("*.safetensors"))),
    ]
    for other in others:
        try:
            codec = _loaded(other, threads)
        except ModelError:  # a damaged file in the cache must not hide the others
            continue
        if codec.fingerprint == fingerprint:
            return codec
    raise WeightsMissingError(
        f"the model {fingerprint.hex()} that wrote this file is not here",
        table.where_former(fingerprint.hex())
        or "give its model.safetensors with `model`, or: vizcomp weights add NAME FILE"
        f" (it is then in {cache.model_folder()})",
    )


_cache: dict[tuple[str, int], NeuralCodec] = {}


def _loaded(name: str, threads: int) -> NeuralCodec:
    """Models that were opened stay open: a batch decodes many files of one model."""
    if (name, threads) not in _cache:
        _cache[name, threads] = NeuralCodec.load(name, threads=threads)
    return _cache[name, threads]


def decode(
    data: bytes,
    *,
    models: Sequence[str | Path] = (),
    iterations: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    allow_truncated: bool = False,
) -> Decoded:
    """The image of a .vzc file; the model is found by the fingerprint in the file. See
    `NeuralCodec.decode`.

    Raises:
        WeightsMissingError: the model is not here.
    """
    header = vzc.read_header(data, max_pixels=max_pixels)
    codec = find_model(header.model, models)
    return codec.decode(
        data, iterations=iterations, max_pixels=max_pixels, allow_truncated=allow_truncated
    )
