"""Images as tensors and back, tiles, and the states of a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vizcomp.photos.frame import rgb
from vizcomp.vzc import coding

if TYPE_CHECKING:
    import torch

    from vizcomp.nets.recurrent import CodecState, RecurrentConfig


Pixels = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.uint8]


def check_image(image: Pixels) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        raise ValueError(f"an image is a uint8 array (H, W, 3) or (H, W), not {image.dtype} {image.shape}")


def bit_limit(max_pixels: int, config: RecurrentConfig) -> int:
    """More bits than an image of `max_pixels` can have, long thin ones included."""
    return max(coding.MAX_BITS, sum(config.bits) * (max_pixels // config.block + 1))


def cut(image: Pixels, at: tuple[slice, slice], block: int) -> Pixels:
    """A part of an image, given in positions, as RGB; what is outside repeats the image's edge."""
    height, width = image.shape[:2]
    bottom, right = at[0].stop * block, at[1].stop * block
    part = image[at[0].start * block : min(bottom, height), at[1].start * block : min(right, width)]
    return np.pad(rgb(part), ((0, max(0, bottom - height)), (0, max(0, right - width)), (0, 0)), mode="edge")


def tiles(rows: int, columns: int, side: int, reach: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Tiles in positions: the inside of each, and the inside with its overlap."""

    def cuts(length: int) -> list[tuple[slice, slice]]:
        return [
            (slice(a, min(a + side, length)), slice(max(0, a - reach), min(a + side + reach, length)))
            for a in range(0, length, side)
        ]

    for y, wide_y in cuts(rows):
        for x, wide_x in cuts(columns):
            yield (y, x), (wide_y, wide_x)


def to_tensor(images: Pixels) -> torch.Tensor:
    import torch

    # channels last in memory, as the images are: the convolutions are quicker for it
    images = np.require(images, requirements=["C", "W"])  # torch warns of arrays that cannot be written, as Pillow gives them
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def as_shown(images: torch.Tensor) -> torch.Tensor:
    """What a decoder writes, in whole levels, on the network's scale of -1..1."""
    return levels(images).div_(127.5).sub_(1)


def levels(images: torch.Tensor) -> torch.Tensor:
    return images.clamp(-1, 1).add(1).mul_(127.5).round_()


def put_state(state: CodecState, which: torch.Tensor, part: CodecState) -> None:
    """Writes the decoder's state of some images into that of all, the inverse of `search.picked`."""
    state.image[which] = part.image
    for whole, some in zip(state.decoder, part.decoder, strict=True):
        if whole is not None and some is not None:
            whole[0][which], whole[1][which] = some


def to_pixels(images: torch.Tensor) -> Pixels:
    import torch

    scaled = levels(images).to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())


def to_grey(image: Pixels) -> Pixels:
    grey: Pixels = np.rint(image.mean(2)).astype(np.uint8)
    return grey
