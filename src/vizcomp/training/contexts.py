"""The context model of a trained codec: fitted to the bits that it writes for its training
images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.nets.recurrent import RecurrentCodec
from vizcomp.nets.spectral import SpectralCodec
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.models import CONTEXT_PREFIX
from vizcomp.vzc import coding, fitting

# photos are coded in parts of this side: as much context as a large image has nearly everywhere
SIDE = 256


def fit_contexts(
    network: RecurrentCodec | SpectralCodec,
    metadata: dict[str, Any],
    images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    *,
    most: int = 0,
    seed: int = 0,
    sets: int = 8,
) -> tuple[coding.ContextModel, dict[str, npt.NDArray[Any]]]:
    """Codes images with all iterations and fits a context model to the bits.

    Args:
        network: on the CPU.
        metadata: of the codec; `classifier` names what the encoder is told the answer of.
        images: uint8 (N, H, W, 3) of the native size, or photos (H, W, 3) of any sizes from `SIDE`
            up.
        most: images used at most, evenly chosen; 0 = 10,000 of a native size, or 400 parts of
            photos.
        sets: as `fitting.fit` has them.

    Returns:
        the model, and its arrays under the names that a codec's file uses.
    """
    network = network.eval().requires_grad_(False)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    codec = NeuralCodec(
        network.config,
        weights,
        coding.ContextModel.flat(network.config.bits),
        metadata,
        "in training",
    )
    many = network.config.iterations
    if network.config.native:
        stack = np.asarray(images)[:: max(1, len(images) // (most or 10_000))]
        planes = codec.codes_many(stack, iterations=many, search=0)
        codes = [list(one) for one in zip(*planes, strict=True)]
    else:
        most = most or 400
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(images))
        codes = []
        for k in range(min(most, 4 * len(images))):
            photo = images[order[k % len(images)]]
            height, width = (min(SIDE, n) for n in photo.shape[:2])
            top, left = (
                int(rng.integers(0, n - m + 1))
                for n, m in zip(photo.shape[:2], (height, width), strict=True)
            )
            codes.append(
                codec.codes(
                    photo[top : top + height, left : left + width], iterations=many, search=0
                )
            )
    model = fitting.fit(codes, adaptive=not network.config.native, sets=sets, seed=seed)
    return model, {CONTEXT_PREFIX + name: array for name, array in model.to_arrays().items()}
