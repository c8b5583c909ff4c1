"""What a camera makes of a scene of `depth_scenes.py`: sky, shadows, fog, night, exposure, white
balance, blur, noise."""

from __future__ import annotations

import math

import numpy as np
from depth_raster import Canvas
from depth_textures import Library, hue
from PIL import Image, ImageFilter


def sky(canvas: Canvas, rng: np.random.Generator, library: Library) -> np.ndarray:
    """Colours the pixels on which nothing lies; the colour at the horizon, (3,)."""
    kind = rng.random()
    zenith = np.array([0.3, 0.5, 0.85]) * rng.uniform(0.6, 1.2)
    horizon = np.array([0.8, 0.88, 0.95]) * rng.uniform(0.8, 1.15)
    if kind < 0.35:  # overcast, often burnt out
        zenith = horizon = np.full(3, rng.uniform(0.6, 1.15))
    elif kind < 0.5:
        zenith, horizon = (
            hue(rng, 0.3, 0.9, 0.5),
            np.array([1.0, 0.75, 0.5]) * rng.uniform(0.7, 1.1),
        )
    rays = canvas.directions()
    share = np.clip(rays[..., 1:2] * rng.uniform(1, 3), 0, 1) ** 0.6
    colour = (1 - share) * horizon + share * zenith
    if rng.random() < 0.6:
        field = library.noises[rng.integers(9, 18)]
        spread = rng.uniform(10, 40)
        x = (rays[..., 0] / (rays[..., 1] + 0.25) * spread).astype(int) % 128
        y = (rays[..., 2] / (rays[..., 1] + 0.25) * spread).astype(int) % 128
        cloud = np.clip(field[y, x] * rng.uniform(0.2, 0.6) + rng.uniform(-0.3, 0.5), 0, 1)[
            ..., None
        ]
        colour = colour * (1 - cloud) + cloud * rng.uniform(0.7, 1.1)
    empty = ~np.isfinite(canvas.depth)
    canvas.colour[empty] = colour[empty]
    return np.asarray(horizon)


def shadows(canvas: Canvas, rng: np.random.Generator, library: Library) -> np.ndarray:
    """Brightness (H, W, 1) under shadows of trees and houses that are not in the picture: patches
    on the ground and on fronts."""
    rays = (
        np.stack(
            [
                *np.broadcast_arrays(canvas.xs[None], canvas.ys[:, None]),
                np.ones(canvas.depth.shape),
            ],
            -1,
        )
        @ canvas.rotation
    )
    place = canvas.eye + rays * np.where(np.isfinite(canvas.depth), canvas.depth, 0)[..., None]
    field = library.noises[rng.integers(9, 18)]
    spread = rng.uniform(2, 12)
    a, b = (
        ((place[..., k] + rng.uniform(0.3, 1) * place[..., 1]) * spread).astype(int) % 128
        for k in (0, 2)
    )
    soft = np.clip((field[a, b] - rng.uniform(-0.8, 1.2)) * rng.uniform(1, 6), 0, 1)
    soft = np.where(np.isfinite(canvas.depth), soft, 0)
    return (1 - soft * rng.uniform(0.3, 0.75))[..., None]


def developed(
    canvas: Canvas, rng: np.random.Generator, library: Library, where: str
) -> Image.Image:
    """The picture as a camera would give it: fog, night, exposure, white balance, vignette, blur,
    noise."""
    if where == "out":
        horizon = sky(canvas, rng, library)
        if rng.random() < 0.35:
            clear = np.exp(
                -np.minimum(canvas.depth, 1e4) / math.exp(rng.uniform(math.log(25), math.log(400)))
            )[..., None]
            seen = np.isfinite(canvas.depth)[..., None]
            canvas.colour = np.where(
                seen, canvas.colour * clear + horizon * (1 - clear), canvas.colour
            ).astype(np.float32)
    picture = np.clip(canvas.colour, 0, None)
    if where == "out" and rng.random() < 0.5:
        picture = picture * shadows(canvas, rng, library)
    # night, or lamplight: a lit place, and dark around it
    if rng.random() < (0.1 if where == "out" else 0.2):
        y, x = np.mgrid[0 : canvas.height, 0 : canvas.width]
        cx, cy = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (rng.uniform(0.3, 1) * canvas.width) ** 2)[
            ..., None
        ]
        picture = (
            picture
            * (rng.uniform(0.1, 0.5) + rng.uniform(0.4, 1.2) * glow)
            * hue(rng, 0.8, 1.1, 0.25)
        )
    picture = picture * rng.uniform(0.9, 1.1, 3)
    level = np.percentile(picture, rng.uniform(85, 98)) + 1e-3
    picture = np.clip(picture / level * rng.uniform(0.6, 1.15), 0, 1) ** math.exp(
        rng.uniform(-0.5, 0.3)
    )
    grey = picture.mean(2, keepdims=True)
    picture = grey + (picture - grey) * rng.uniform(0.3, 1.3)
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.7:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    noisy = np.asarray(image, np.float32) + rng.normal(
        0, rng.uniform(0, 8), (canvas.height, canvas.width, 1 if rng.random() < 0.5 else 3)
    )
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def blurred_behind(image: Image.Image, depth: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """What lies behind the nearest things out of focus, as a wide aperture gives it."""
    edge = np.percentile(depth[np.isfinite(depth)], rng.uniform(20, 50)) * rng.uniform(1.0, 1.4)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 4))), np.float32)
    share = np.clip((depth - edge) / edge * 2, 0, 1)[..., None]
    share = np.where(np.isfinite(share), share, 1)
    return Image.fromarray(
        (np.asarray(image, np.float32) * (1 - share) + soft * share).astype(np.uint8)
    )
