"""Textures for `depth_scenes.py`: crops of photos, and made ones (noise, bricks, tiles, boards,
cloth, leaves, house fronts)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from depth_raster import Texture
from PIL import Image

Array = npt.NDArray[np.float32]
SCIKIT_IMAGE = (
    "astronaut",
    "brick",
    "chelsea",
    "coffee",
    "grass",
    "gravel",
    "rocket",
    "camera",
    "coins",
)


def _resized(pixels: npt.NDArray[np.uint8], height: int, width: int) -> Array:
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) / 255


def noise(rng: np.random.Generator, size: int, slope: float) -> Array:
    """Noise with a spectrum of 1 / f ** slope, repeating, of mean 0 and deviation 1: float32 (size,
    size)."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / f**slope
    spectrum[0, 0] = 0
    out = np.fft.irfft2(spectrum, (size, size))
    return (out / out.std()).astype(np.float32)


def hue(rng: np.random.Generator, low: float, high: float, saturation: float) -> Array:
    """A colour of some brightness between two bounds, more or less grey: float32 (3,)."""
    colour = rng.random(3)
    colour = colour / max(colour.max(), 1e-3)
    share = rng.random() * saturation
    return np.asarray((share * colour + 1 - share) * rng.uniform(low, high), np.float32)


class Library:
    """Textures drawn at random.

    Args:
        rng: what all is drawn from.
        folders: of photos whose crops serve as textures, beside scikit-image's own.
    """

    def __init__(self, rng: np.random.Generator, folders: list[Path]) -> None:
        from skimage import data

        self.rng = rng
        self.photos: list[npt.NDArray[np.uint8]] = []
        for name in SCIKIT_IMAGE:
            pixels = np.asarray(getattr(data, name)())
            self.photos.append(
                np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels[..., :3]
            )
        for folder in folders:
            for path in sorted(
                p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")
            ):
                with Image.open(path) as file:
                    self.photos.append(np.asarray(file.convert("RGB")))
        self.noises = [
            noise(rng, 128, slope) for slope in (0.0, 0.4, 0.8, 1.0, 1.3, 1.7) for _ in range(3)
        ]

    def crop(
        self, low: float = 0.2, high: float = 1.0, size: int = 128, aspect: float = 1.0
    ) -> Array:
        """A part of a photo, `low` to `high` of its shorter side high: float32 (size, size *
        aspect, 3)."""
        rng = self.rng
        photo = self.photos[rng.integers(len(self.photos))]
        h, w = photo.shape[:2]
        side = min(rng.uniform(low, high) * min(h, w), h, w / aspect)
        tall, wide = max(4, int(side)), max(4, int(side * aspect))
        tall, wide = min(tall, h), min(wide, w)
        y, x = rng.integers(h - tall + 1), rng.integers(w - wide + 1)
        out = _resized(photo[y : y + tall, x : x + wide], size, max(4, int(size * aspect)))
        return out[:, ::-1] if rng.random() < 0.5 else out

    def grain(self, contrast: float = 0.15) -> Array:
        """Repeating grey noise around 1: float32 (128, 128, 1)."""
        return 1 + contrast * self.noises[self.rng.integers(len(self.noises))][..., None]

    def surface(self, size: float = 2.0) -> Texture:
        """Any material: noise, a photo's crop toned down, bricks, tiles, boards or cloth; repeated
        every `size` metres or so."""
        rng = self.rng
        kind = rng.random()
        extent = size * math.exp(rng.uniform(-0.7, 0.7))
        colour = hue(rng, 0.2, 1.0, 0.8 if rng.random() < 0.4 else 0.35)
        if kind < 0.3:
            return Texture(colour * self.grain(rng.uniform(0.01, 0.25)), (extent, extent))
        if kind < 0.6:
            pixels = self.crop(0.1, 0.5)
            pixels = np.concatenate([pixels, pixels[::-1]], 0)
            mean = pixels.mean((0, 1))
            return Texture(
                np.clip(colour + (pixels - mean) * rng.uniform(0.3, 1.2), 0, 1.2),
                (extent, 2 * extent),
            )
        if kind < 0.7:
            return self.bricks(colour, extent)
        if kind < 0.8:
            return self.tiles(extent)
        if kind < 0.9:
            return self.boards(colour, extent)
        return self.cloth(colour, extent)

    def plain(
        self, low: float = 0.5, high: float = 1.0, saturation: float = 0.4, size: float = 3.0
    ) -> Texture:
        """Paint or plaster."""
        return Texture(
            hue(self.rng, low, high, saturation) * self.grain(self.rng.uniform(0.005, 0.05)),
            (size, size),
        )

    def bricks(self, colour: Array, extent: float) -> Texture:
        """Rows of bricks, each a little different."""
        rng = self.rng
        rows, columns = 16, 8
        shades = 1 + 0.15 * rng.standard_normal((rows, columns + 1))
        y, x = np.mgrid[0:128, 0:128]
        row = y * rows // 128
        column = (x * columns / 128 + 0.5 * (row % 2)) % columns
        mortar = (y * rows % 128 < 20) | ((column % 1) < 0.08)
        pixels = colour * shades[row, column.astype(int)][..., None] * self.grain(0.05)
        return Texture(
            np.where(mortar[..., None], rng.uniform(0.3, 0.9), pixels).astype(np.float32),
            (extent, extent),
        )

    def tiles(self, extent: float) -> Texture:
        """Square tiles in one colour or two."""
        rng = self.rng
        count = int(rng.integers(2, 9))
        colours = (
            np.stack([hue(rng, 0.2, 1.0, 0.6)] * 2)
            if rng.random() < 0.6
            else np.stack([hue(rng, 0.2, 1.0, 0.6) for _ in range(2)])
        )
        y, x = np.mgrid[0:128, 0:128] * count / 128
        pixels = colours[((y.astype(int) + x.astype(int)) % 2)] * self.grain(0.03)
        joint = (y % 1 < 0.06) | (x % 1 < 0.06)
        return Texture(
            np.where(joint[..., None], rng.uniform(0.2, 0.9), pixels).astype(np.float32),
            (extent, extent),
        )

    def boards(self, colour: Array, extent: float) -> Texture:
        """Boards with grain along them."""
        rng = self.rng
        count = int(rng.integers(3, 10))
        y, x = np.mgrid[0:128, 0:128]
        board = y * count // 128
        field = self.noises[rng.integers(9, 18)]
        grain = field[(y * 3) % 128, ((x // 8) + board * 31) % 128]
        pixels = colour * (1 + 0.15 * grain + 0.12 * rng.standard_normal(count)[board])[..., None]
        pixels[(y * count % 128) < 4] *= 0.6
        pixels = pixels.transpose(1, 0, 2) if rng.random() < 0.5 else pixels
        return Texture(np.ascontiguousarray(pixels, np.float32), (extent, extent))

    def cloth(self, colour: Array, extent: float) -> Texture:
        """Stripes or checks."""
        rng = self.rng
        y, x = np.mgrid[0:128, 0:128] * (2 * math.pi * rng.integers(1, 12) / 128)
        wave = np.sign(np.sin(x)) * (rng.random() < 0.7) + np.sign(np.sin(y)) * (rng.random() < 0.5)
        other = hue(rng, 0.1, 1.0, 0.9)
        share = ((wave + 2) / 4)[..., None]
        return Texture(
            (share * colour + (1 - share) * other).astype(np.float32) * self.grain(0.05),
            (extent, extent),
        )

    def ground(self, kind: str) -> Texture:
        """Asphalt, paving, grass, earth, sand, water or snow."""
        rng = self.rng
        if kind == "paving":
            return (
                self.tiles(rng.uniform(1, 4))
                if rng.random() < 0.5
                else self.bricks(hue(rng, 0.4, 0.8, 0.3), rng.uniform(1, 3))
            )
        colours = {
            "asphalt": (0.35, 0.36, 0.38),
            "grass": (0.3, 0.42, 0.15),
            "earth": (0.45, 0.36, 0.25),
            "sand": (0.8, 0.7, 0.5),
            "water": (0.25, 0.35, 0.42),
            "snow": (0.9, 0.92, 0.95),
        }
        colour = (
            np.asarray(colours[kind], np.float32)
            * rng.uniform(0.6, 1.4)
            * (1 + 0.1 * rng.standard_normal(3))
        )
        contrast = 0.08 if kind in ("asphalt", "snow") else 0.25
        pixels = colour * self.grain(contrast * rng.uniform(0.4, 1.5)) * self.grain(contrast * 0.5)
        return Texture(np.clip(pixels, 0, 1.2).astype(np.float32), (rng.uniform(2, 12),) * 2)

    def leaves(self) -> Texture:
        """Foliage with gaps."""
        rng = self.rng
        colour = (
            np.asarray((0.25, 0.38, 0.12), np.float32)
            * rng.uniform(0.5, 1.5)
            * (1 + 0.25 * rng.standard_normal(3))
        )
        if rng.random() < 0.15:
            colour = hue(rng, 0.3, 0.9, 1.0)
        fine, coarse = self.noises[rng.integers(3, 9)], self.noises[rng.integers(9, 15)]
        pixels = np.clip(colour * (1 + 0.4 * fine + 0.25 * coarse)[..., None], 0, 1).astype(
            np.float32
        )
        if rng.random() < 0.4:
            pixels = np.clip(
                pixels.mean() * 0.3 + 0.7 * pixels + 0.5 * (self.crop(0.1, 0.4) - 0.5), 0, 1
            )
        opaque = (self.noises[rng.integers(6, 12)] > rng.uniform(-1.6, -0.4)).astype(np.float32)
        return Texture(np.concatenate([pixels, opaque[..., None]], 2), (rng.uniform(0.6, 3.0),) * 2)

    def pane(self, h: int, w: int) -> Array:
        """A window: dark, or a reflection, or a lit room."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.5:
            pane = (
                np.ones((h, w, 3), np.float32)
                * hue(rng, 0.05, 0.35, 0.3)
                * np.linspace(rng.uniform(0.6, 2), 1, h)[:, None, None]
            )
        elif kind < 0.85:
            pane = self.crop(0.2, 0.8, h, w / h)[:h, :w] * rng.uniform(0.3, 0.8)
            pane = np.broadcast_to(pane, (h, pane.shape[1], 3)).copy()
        else:
            pane = np.ones((h, w, 3), np.float32) * hue(rng, 0.5, 1.0, 0.3)
        out = np.zeros((h, w, 3), np.float32) + pane.mean((0, 1))
        out[: pane.shape[0], : pane.shape[1]] = pane[:h, :w]
        edge = hue(rng, 0.1, 1.0, 0.3)
        out[0], out[-1], out[:, 0], out[:, -1] = edge, edge, edge, edge
        if rng.random() < 0.6:
            out[:, w // 2] = edge
        return out

    def front(self, storeys: int, bays: int, shop: bool) -> Texture:
        """The front of a house, once over a wall: storeys of windows, perhaps a shop below."""
        rng = self.rng
        cell = 40
        height, width = storeys * cell, bays * cell
        base = (
            self.surface(3.0).pixels[: 128 * 128, :3].reshape(128, 128, 3)
            if rng.random() < 0.4
            else None
        )
        if base is None or base.shape[0] != 128:
            base = hue(rng, 0.35, 1.0, 0.5) * self.grain(0.04)
        tiled = (
            np.tile(base, (height // 128 + 1, width // 128 + 1, 1))[:height, :width]
            .astype(np.float32)
            .copy()
        )
        h, w = int(cell * rng.uniform(0.4, 0.75)), int(cell * rng.uniform(0.3, 0.8))
        panes = [self.pane(h, w) for _ in range(4)]
        for storey in range(storeys):
            for bay in range(bays):
                if rng.random() < 0.95:
                    y, x = storey * cell + (cell - h) // 2, bay * cell + (cell - w) // 2
                    tiled[y : y + h, x : x + w] = panes[rng.integers(4)]
            if rng.random() < 0.3:
                tiled[storey * cell : storey * cell + 3] *= 0.7
        if shop:
            self._shop(tiled, cell)
        elif rng.random() < 0.7:
            x = int(rng.integers(bays)) * cell + cell // 4
            tiled[-int(cell * 0.75) :, x : x + cell // 2] = hue(rng, 0.05, 0.8, 0.9)
        return Texture(tiled)

    def _shop(self, front: Array, cell: int) -> None:
        """Shop windows and a sign with lettering, in the lowest storey."""
        rng = self.rng
        width = front.shape[1]
        x = 2
        while x < width - 12:
            wide = min(int(rng.integers(14, 60)), width - x - 2)
            h = int(cell * 0.6)
            front[-h - 2 : -2, x : x + wide] = self.pane(h, wide)
            x += wide + int(rng.integers(2, 8))
        sign, ink = hue(rng, 0.05, 1.0, 1.0), hue(rng, 0.0, 1.0, 0.8)
        top = front.shape[0] - cell + 2
        front[top : top + 10] = sign
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, max(1, width - 30)))
            letters = rng.random((6, 24)) < 0.5
            front[top + 2 : top + 8, at : at + 24][letters[:, : width - at]] = ink

    def picture(self, aspect: float = 1.0) -> Texture:
        """A photo in a frame, or a poster, a screen, a book's cover: once over a surface."""
        pixels = self.crop(0.3, 1.0, 96, aspect).copy()
        edge = int(self.rng.integers(0, 8))
        if edge:
            frame = hue(self.rng, 0.05, 1.0, 0.7)
            pixels[:edge], pixels[-edge:], pixels[:, :edge], pixels[:, -edge:] = (
                frame,
                frame,
                frame,
                frame,
            )
        return Texture(pixels)

    def cut_out(self) -> Texture:
        """A part of a photo with a smooth random outline: something that stands there."""
        rng = self.rng
        pixels = self.crop(0.25, 0.8, 128)
        y, x = np.mgrid[0:128, 0:128]
        angle = np.arctan2(y - 64, x - 64)
        radius = 46 + sum(
            rng.normal(0, 9 / k) * np.sin(k * angle + rng.uniform(0, 6.3)) for k in range(1, 7)
        )
        inside = np.hypot(y - 64, x - 64) < radius
        return Texture(np.concatenate([pixels, inside[..., None].astype(np.float32)], 2))

    def doors(self, columns: int, rows: int) -> Texture:
        """The front of a cupboard: panels with handles."""
        rng = self.rng
        wood = rng.random() < 0.4
        colour = hue(rng, 0.15, 1.0, 0.9)
        h, w = 48 * rows, 48 * columns
        pixels = np.ones((h, w, 3), np.float32) * colour
        if wood:
            grain = self.noises[rng.integers(9, 18)]
            pixels *= (
                1
                + 0.15
                * grain[np.arange(h)[:, None] // 6 % 128, np.arange(w)[None] * 2 % 128][..., None]
            )
        handle = hue(rng, 0.05, 1.0, 0.2)
        for r in range(rows):
            for c in range(columns):
                y, x = 48 * r, 48 * c
                pixels[y : y + 48, x] *= 0.4
                pixels[y, x : x + 48] *= 0.4
                pixels[y + 8 : y + 10, x + 14 : x + 34] = handle
        return Texture(pixels)

    def books(self) -> Texture:
        """Spines of books."""
        rng = self.rng
        pixels = np.zeros((48, 128, 3), np.float32) + 0.08
        x = 0
        while x < 128:
            w, h = int(rng.integers(3, 9)), int(rng.integers(30, 48))
            pixels[48 - h :, x : x + w] = hue(rng, 0.1, 1.0, 1.0)
            pixels[48 - h // 2 : 50 - h // 2, x : x + w] *= 0.5
            x += w
        return Texture(pixels)

    def ridge(self, colour: Array) -> Texture:
        """A far ridge of hills, woods or roofs against the sky, once over a surface."""
        rng = self.rng
        line = np.cumsum(rng.standard_normal(512)) * rng.uniform(0.2, 1.5)
        if rng.random() < 0.4:
            line = np.repeat(rng.normal(0, 12, 64), 8)
        line = 30 + line - np.linspace(line[0], line[-1], 512)
        rows = np.arange(96)[:, None]
        pixels = np.tile(colour * self.grain(0.2), (1, 4, 1))[:96]
        return Texture(np.concatenate([pixels, (rows > line)[..., None]], 2).astype(np.float32))
