"""A codec's networks on images of any size and number: in tiles, and in batches.

The decoder's tiles overlap by more than its convolutions reach, so that its image has no seams; the
encoder's overlap by what matters, so that near the border of a tile a few bits may differ from an
untiled run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vizcomp.graphs.recurrent import RecurrentConfig
from vizcomp.neural.analysis import MEND, Analyser, candidate_count
from vizcomp.neural.arrays import Bits, Pixels, cut, tiles, to_pixels
from vizcomp.neural.network import AnyNetwork, decode_each
from vizcomp.photos.frame import rgb

TILE = 768  # side of a tile in pixels, without its overlap
REACH = 64  # how far around a tile the encoder looks
BATCH = 256  # small images that go through together


class Tiling:
    """Images to bits and bits to images. Its arguments are checked by those who call.

    Args:
        network: the codec's.
        analyser: which chooses the bits.
    """

    def __init__(self, network: AnyNetwork, analyser: Analyser) -> None:
        self._network, self._analyser = network, analyser
        self._config = network.config

    def codes(self, image: Pixels, many: int, search: int | None) -> list[Bits]:
        """`NeuralCodec.codes` of `many` iterations."""
        height, width = image.shape[:2]
        if self._config.native or max(height, width) <= TILE + REACH:
            return [plane[0] for plane in self.codes_many(rgb(image)[None], many, search)]
        block = self._config.block
        rows, columns = -(-height // block), -(-width // block)
        codes = [np.empty((count, rows, columns), np.uint8) for count in self._config.bits[:many]]
        for inner, outer in tiles(rows, columns, TILE // block, -(-REACH // block)):
            part = cut(image, outer, block)
            planes = self._analyser.bits(part[None], many, candidate_count(search))
            at = tuple(
                slice(a.start - b.start, a.stop - b.start)
                for a, b in zip(inner, outer, strict=True)
            )
            for plane, tile in zip(codes, planes, strict=True):
                plane[:, inner[0], inner[1]] = tile[0][:, at[0], at[1]]
        return codes

    def codes_many(self, images: Pixels, many: int, search: int | None) -> list[Bits]:
        """`NeuralCodec.codes_many` of `many` iterations."""
        candidates, mend = candidate_count(search), 0 if search == 0 else MEND
        block = self._config.block
        height, width = images.shape[1:3]
        whole = (slice(0, -(-height // block)), slice(0, -(-width // block)))
        step = max(1, min(BATCH, (1 << 21) // (height * width)))
        parts = []
        for start in range(0, len(images), step):
            padded = np.stack([cut(image, whole, block) for image in images[start : start + step]])
            parts.append(self._analyser.bits(padded, many, candidates, mend))
        if not parts:
            return [
                np.empty((0, c, whole[0].stop, whole[1].stop), np.uint8)
                for c in self._config.bits[:many]
            ]
        return [np.concatenate(planes) for planes in zip(*parts, strict=True)]

    def image(self, codes: Sequence[Bits], height: int, width: int) -> Pixels:
        """`NeuralCodec.image`."""
        if self._config.native or max(height, width) <= TILE + REACH:
            return self.images([c[None] for c in codes])[0, :height, :width]
        block = self._config.block
        rows, columns = codes[0].shape[1:]
        out = np.empty((height, width, 3), np.uint8)
        for inner, outer in tiles(rows, columns, TILE // block, self._decoder_reach(len(codes))):
            part = self.images([c[None, :, outer[0], outer[1]] for c in codes])[0]
            top, left = (
                (inner[0].start - outer[0].start) * block,
                (inner[1].start - outer[1].start) * block,
            )
            target = out[
                inner[0].start * block : inner[0].stop * block,
                inner[1].start * block : inner[1].stop * block,
            ]
            target[:] = part[top : top + target.shape[0], left : left + target.shape[1]]
        return out

    def images(self, codes: Sequence[Bits]) -> Pixels:
        """`NeuralCodec.images`."""
        return self.images_between(codes, len(codes))[0]

    def images_between(self, codes: Sequence[Bits], first: int) -> list[Pixels]:
        """`NeuralCodec.images_between`."""
        count, _, rows, columns = codes[0].shape
        block = self._config.block
        step = max(1, min(BATCH, (1 << 21) // (rows * columns * block**2)))
        images = [
            np.empty((count, rows * block, columns * block, 3), np.uint8)
            for _ in codes[first - 1 :]
        ]
        for start in range(0, count, step):
            decoded = decode_each(self._network, (c[start : start + step] for c in codes), first)
            for made, image in zip(images, decoded, strict=True):
                made[start : start + step] = to_pixels(image)
        return images

    def _decoder_reach(self, iterations: int) -> int:
        """How many positions around a tile can change its inside."""
        # the others have a size of their own, and no tiles
        assert isinstance(self._config, RecurrentConfig)
        scale, reach = float(self._config.block), 0.0
        for _, up, kernel in self._config.decoder:
            reach += scale * (1 + (kernel // 2) * (iterations - 1))
            scale /= up
        return math.ceil((reach + self._config.decoder[-1][1]) / self._config.block)
