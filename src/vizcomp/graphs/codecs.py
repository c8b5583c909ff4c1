"""The configurations of codecs: of photos and pictures in pixels, and of small pictures in their
spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vizcomp.graphs import recurrent, spectral, unrolled
from vizcomp.graphs.recurrent import RecurrentConfig, Weights
from vizcomp.graphs.spectral import SpectralConfig

CodecConfig = RecurrentConfig | SpectralConfig


def is_spectral(values: Mapping[str, Any]) -> bool:
    """Whether these are fields of a `SpectralConfig`."""
    return "zones" in values or "steps" in values


def codec_config(values: Mapping[str, Any]) -> CodecConfig:
    """The configuration that `to_dict` wrote, or a recipe's.

    Raises:
        SettingsError: an unknown field or an impossible value.
    """
    return (
        SpectralConfig.from_dict(dict(values))
        if is_spectral(values)
        else RecurrentConfig.from_dict(dict(values))
    )


def shapes(config: CodecConfig) -> dict[str, tuple[int, ...]]:
    """The weights that a codec has: names and shapes."""
    return (
        spectral.shapes(config) if isinstance(config, SpectralConfig) else recurrent.shapes(config)
    )


def exported(
    config: CodecConfig, weights: Weights, part: str, iterations: int, metadata: Mapping[str, str]
) -> bytes:
    """The decoder or encoder of a codec, all its iterations in one graph; part: "decoder" or
    "encoder"."""
    if isinstance(config, SpectralConfig):
        made = unrolled.spectral_encoder if part == "encoder" else unrolled.spectral_decoder
        return made(config, weights, iterations, metadata)
    of = unrolled.recurrent_encoder if part == "encoder" else unrolled.recurrent_decoder
    return of(config, weights, iterations, metadata)
