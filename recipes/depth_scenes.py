"""Pictures with exact depth, made from packages alone: roads, streets, rooms, kitchens, tables,
people up close, country.

    python recipes/depth_scenes.py --out scenes --count 12000 --seed 1 \\
        --textures ../shared/data/bsds [--jobs 2]

writes `scenes/photos/NAME.jpg` and `scenes/depth/NAME.png`: uint16, planar distance along the
optical axis, small = near, 65535 = sky; 256, 512 ... or 4096 = one metre, as the file's text says.
It names its kind too, so that `vizcomp djpeg --depth-maps` reads it as it is.
NAME begins with the kind of scene. Picture number k depends on the seed and k alone: more can be
added, in any number of jobs, and a run that was stopped goes on with the pictures that are missing.

The geometry is made up (`depth_raster.py`, `depth_things.py`), the appearance comes from photos'
crops and made textures (`depth_textures.py`), the rest of a photo from `depth_camera.py`. Needs
numpy, Pillow and scikit-image.
"""

# ruff: noqa: RUF005  (`place + (0, y, 0)` adds to an array)
from __future__ import annotations

import argparse
import io
import math
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from depth_camera import blurred_behind, developed
from depth_raster import Canvas, Light
from depth_textures import Library, hue
from depth_things import (
    backdrop,
    car,
    chair,
    counters,
    furniture,
    house,
    person,
    pole,
    small_thing,
    table,
    tree,
)
from PIL import Image, PngImagePlugin

METRE = 256  # of the maps; pictures without anything far have 2, 4 ... 16 times as much
FAR = 65535 / METRE
SHARES = {
    "road": 0.2,
    "street": 0.2,
    "room": 0.2,
    "kitchen": 0.08,
    "table": 0.1,
    "near": 0.12,
    "country": 0.1,
}


def camera(
    rng: np.random.Generator, pixels: int, aspect: float, view: float
) -> tuple[tuple[int, int], float]:
    """Height and width of a picture of an aspect, and the focal length in pixels where its long
    side sees `view` degrees."""
    width, height = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
    return (height, width), max(width, height) / 2 / math.tan(math.radians(view) / 2)


def any_aspect(rng: np.random.Generator) -> float:
    return float(rng.choice([4 / 3, 4 / 3, 4 / 3, 3 / 2, 16 / 9, 1.0, 3 / 4, 2 / 3, 9 / 16]))


def outdoors(rng: np.random.Generator) -> Light:
    """Sun from anywhere above, or an overcast sky."""
    a, e = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.4)
    strength = rng.uniform(0.0, 0.9) if rng.random() < 0.7 else 0.05
    return Light(
        (math.cos(a) * math.cos(e), math.sin(e), math.sin(a) * math.cos(e)),
        strength,
        rng.uniform(0.35, 0.95) - 0.3 * strength,
    )


def indoors(rng: np.random.Generator) -> Light:
    a, e = rng.uniform(0, 2 * math.pi), rng.uniform(-0.3, 1.4)
    return Light(
        (math.cos(a) * math.cos(e), math.sin(e), math.sin(a) * math.cos(e)),
        rng.uniform(0.1, 0.5),
        rng.uniform(0.35, 0.8),
    )


def floor(
    canvas: Canvas,
    library: Library,
    kind: str,
    x0: float,
    x1: float,
    z0: float,
    z1: float,
    y: float = 0.0,
) -> None:
    canvas.quad(
        (x0, y, z1),
        (x1 - x0, 0, 0),
        (0, 0, z0 - z1),
        library.ground(kind),
        gloss=library.rng.uniform(0, 0.3),
    )


def row_of_houses(
    canvas: Canvas, library: Library, side: int, edge: float, start: float, end: float, style: str
) -> None:
    """What stands along one side of a street, from `start` to `end`: houses with gaps, trees,
    hedges, walls."""
    rng = library.rng
    z = start
    while z < end:
        length = rng.uniform(7, 26)
        kind = rng.random()
        back = edge + (0 if style == "town" else rng.uniform(2, 12))
        built = {"town": 0.9, "suburb": 0.6, "country": 0.12}[style]
        if kind < built:
            house(
                canvas, library, side, back, z, length, shop=style == "town" and rng.random() < 0.5
            )
        elif kind < built + 0.1:
            canvas.box(
                (side * (back + 1), 0, z + length / 2),
                (0.6, rng.uniform(0.8, 3), length),
                library.surface(2.0),
            )
        if style != "town" and rng.random() < 0.5:  # a hedge or a fence in front
            texture = library.leaves() if rng.random() < 0.6 else library.surface(1.0)
            canvas.box(
                (side * (edge + 0.5), 0, z + length / 2),
                (rng.uniform(0.2, 1.2), rng.uniform(0.6, 2.2), length),
                texture,
            )
        for _ in range(int(rng.integers(0, {"town": 2, "suburb": 4, "country": 8}[style]))):
            tree(
                canvas,
                library,
                (
                    side * (edge + rng.uniform(0.3, 14 if style == "country" else 5)),
                    0,
                    z + rng.uniform(0, length),
                ),
            )
        z += length + (rng.uniform(0, 3) if style == "town" else rng.uniform(2, 12)) * (
            rng.random() < 0.5
        )


def traffic(
    canvas: Canvas, library: Library, half: float, start: float, end: float, parked: float
) -> None:
    """Parked cars along both kerbs, cars on the road, people, poles and signs."""
    rng = library.rng
    for side in (-1, 1):
        share = parked * rng.uniform(0, 1)
        z = start + rng.uniform(0, 6)
        while z < min(end, 70):
            if rng.random() < share:
                car(
                    canvas,
                    library,
                    (side * (half - 1.1), 0, z),
                    rng.normal(0, 0.04) + math.pi * (rng.random() < 0.5),
                )
            z += rng.uniform(5.0, 8.0)
        z = start + rng.uniform(0, 15)
        gap = rng.uniform(8, 35)
        while z < end:
            pole(canvas, library, (side * (half + rng.uniform(0.3, 1.2)), 0, z))
            z += gap * rng.uniform(0.7, 1.3)
        for _ in range(int(rng.integers(0, 5))):
            person(
                canvas,
                library,
                (side * (half + rng.uniform(0.3, 2.5)), 0.1, start + rng.exponential(15) + 3),
            )
    for _ in range(int(rng.integers(0, 4))):
        lane = rng.choice([-1, 1])
        car(
            canvas,
            library,
            (lane * half * rng.uniform(0.2, 0.5), 0, start + 6 + rng.exponential(20)),
            math.pi * (lane < 0),
            moving=True,
        )


def street_world(
    canvas: Canvas, library: Library, half: float, style: str, start: float, end: float
) -> None:
    """A straight street along z with what belongs to it."""
    rng = library.rng
    walk = rng.uniform(1.0, 4.5) if style != "country" else rng.uniform(0.5, 2)
    floor(canvas, library, "asphalt", -half, half, start, end)
    kerb = rng.uniform(0.05, 0.18) if style != "country" else 0.0
    kind = "paving" if style == "town" else str(rng.choice(["paving", "grass", "asphalt"]))
    if style == "country":
        kind = "grass"
    for side in (-1, 1):
        x0, x1 = sorted((side * half, side * (half + walk)))
        floor(canvas, library, kind, x0, x1, start, end, kerb)
        if kerb:
            canvas.quad(
                (side * half, kerb, end),
                (0, 0, start - end),
                (0, -kerb, 0),
                library.plain(0.4, 0.8, 0.1),
            )
        x0, x1 = sorted((side * (half + walk), side * 150))
        floor(
            canvas,
            library,
            str(rng.choice(["grass", "earth", "paving"])) if style != "town" else "paving",
            x0,
            x1,
            start,
            end,
            kerb,
        )
        row_of_houses(canvas, library, side, half + walk, start, end, style)
    paint = library.plain(0.8, 1.1, 0.05)
    if rng.random() < 0.7:
        for x in (0.0,) if rng.random() < 0.6 else (-half / 3, half / 3):
            dash = rng.uniform(2, 6) if rng.random() < 0.7 else end
            z = start
            while z < min(end, 90):
                canvas.quad((x - 0.07, 0.004, z + dash), (0.15, 0, 0), (0, 0, -dash), paint)
                z += 2 * dash
    if rng.random() < 0.3:
        z = rng.uniform(4, 25)
        for k in range(int(half * 2)):
            canvas.quad((-half + k, 0.005, z + 3), (0.5, 0, 0), (0, 0, -3), paint)


def road(rng: np.random.Generator, library: Library, pixels: int) -> tuple[Canvas, str]:
    """From a car on a road, wide."""
    aspect = float(rng.choice([3.3, 3.3, 3.3, 3.0, 2.2, 16 / 9, 4 / 3]))
    size, focal = camera(rng, pixels, aspect, rng.uniform(60, 95))
    style = str(rng.choice(["town", "suburb", "suburb", "country", "country"]))
    half = rng.uniform(2.8, 5.5) if style != "country" else rng.uniform(3.0, 8.0)
    eye = (rng.uniform(-half * 0.6, half * 0.6), rng.uniform(1.2, 2.2), 0.0)
    yaw = rng.normal(0, 0.08) if rng.random() < 0.8 else rng.normal(0, 0.5)
    canvas = Canvas(
        size,
        focal,
        eye,
        outdoors(rng),
        yaw=yaw,
        pitch=rng.normal(-0.02, 0.05),
        roll=rng.normal(0, 0.02),
    )
    end = rng.uniform(60, 220) if rng.random() < 0.7 else rng.uniform(20, 60)
    street_world(canvas, library, half, style, -3.0, end)
    traffic(canvas, library, half, 1.0, end, 0.9 if style != "country" else 0.15)
    if rng.random() < 0.6 or end < 60:  # what closes the view: a crossing street's houses, a wood
        if style == "country" or rng.random() < 0.4:
            for _ in range(14):
                tree(canvas, library, (rng.normal(0, 25), 0, end + rng.uniform(0, 20)))
        else:
            house(canvas, library, 0, end, -30, 60, shop=False)
    if style == "country":
        floor(canvas, library, "grass", -300, 300, -3, 400, -0.02)
        backdrop(canvas, library, rng.uniform(150, 240))
        if rng.random() < 0.3:
            for side in (-1, 1):
                canvas.box(
                    (side * (half + 0.5), 0.4, end / 2),
                    (0.1, 0.35, end),
                    library.plain(0.5, 0.9, 0.1),
                )
    return canvas, "out"


def street(rng: np.random.Generator, library: Library, pixels: int) -> tuple[Canvas, str]:
    """On foot or from a car, in any direction: at the houses across the street, along the
    pavement."""
    size, focal = camera(rng, pixels, any_aspect(rng), rng.uniform(45, 85))
    style = str(rng.choice(["town", "town", "suburb"]))
    half = rng.uniform(2.5, 7)
    eye = (rng.uniform(-half - 2, half + 2), rng.uniform(1.2, 2.8), 25.0)
    yaw = (
        rng.uniform(-math.pi, math.pi)
        if rng.random() < 0.35
        else rng.choice([-1, 1]) * rng.uniform(0.3, 1.7)
    )
    pitch = rng.normal(0.03, 0.1)
    canvas = Canvas(size, focal, eye, outdoors(rng), yaw=yaw, pitch=pitch, roll=rng.normal(0, 0.03))
    street_world(canvas, library, half, style, -40.0, rng.uniform(60, 120))
    traffic(canvas, library, half, -20.0, 70.0, 0.6)
    forward = np.array([math.sin(yaw), 0, math.cos(yaw)])
    for _ in range(int(rng.integers(0, 4))):  # people and things close by
        place = (
            np.array(eye) * (1, 0, 1)
            + forward * rng.uniform(2.5, 9)
            + np.array([forward[2], 0, -forward[0]]) * rng.normal(0, 1.5)
        )
        if rng.random() < 0.6:
            person(canvas, library, place)
        else:
            pole(canvas, library, place)
    return canvas, "out"


def shell(canvas: Canvas, library: Library, w: float, h: float, d: float) -> None:
    """Floor, ceiling and walls of a room from (0, 0, 0) to (w, h, d), with windows, doors, pictures
    and skirting."""
    rng = library.rng
    kind = rng.random()
    texture = (
        library.boards(hue(rng, 0.2, 0.9, 0.7), rng.uniform(0.8, 2.5))
        if kind < 0.5
        else library.surface(1.2)
    )
    canvas.quad((0, 0, d), (w, 0, 0), (0, 0, -d), texture, gloss=rng.uniform(0, 0.5))
    canvas.quad((0, h, 0), (w, 0, 0), (0, 0, d), library.plain(0.6, 1.1, 0.2), lit=False)
    same = library.surface(1.5) if rng.random() < 0.3 else library.plain(0.25, 1.05, 0.5)
    walls = (
        ((0, h, d), (w, 0, 0)),
        ((w, h, 0), (-w, 0, 0)),
        ((0, h, 0), (0, 0, d)),
        ((w, h, d), (0, 0, -d)),
    )
    for (x, y, z), across in walls:
        along = np.asarray(across, float)
        long = float(np.linalg.norm(along))
        unit = along / long
        inward = np.array([-unit[2], 0, unit[0]])
        inward = (
            inward if inward @ (np.array([w / 2, 0, d / 2]) - np.array([x, 0, z])) > 0 else -inward
        )
        texture = same if rng.random() < 0.8 else library.surface(2.0)
        canvas.quad((x, y, z), across, (0, -h, 0), texture)
        corner = np.array([x, 0.0, z])
        if rng.random() < 0.6:
            canvas.quad(
                corner + inward * 0.01 + (0, 0.1, 0),
                across,
                (0, -0.1, 0),
                library.plain(0.5, 1.1, 0.2),
            )
        for _ in range(int(rng.integers(0, 4))):
            kind, at = rng.random(), rng.uniform(0, 0.8) * long
            wide = min(rng.uniform(0.3, 1.8), long - at)
            if kind < 0.35:
                top, tall, what = (
                    rng.uniform(1.6, h),
                    rng.uniform(0.3, 1.2),
                    library.picture(float(rng.choice([1.5, 1.0, 0.7]))),
                )
            elif kind < 0.7:
                top, tall, what = (
                    rng.uniform(1.8, h - 0.05),
                    rng.uniform(0.8, 1.6),
                    library.picture(),
                )
            else:
                top, tall, wide, what = 2.0, 2.0, min(0.9, long - at), library.doors(1, 2)
            place = corner + unit * at + inward * 0.02 + (0, min(top, h), 0)
            bright = 1.0 if not 0.35 <= kind < 0.7 else rng.uniform(1.2, 2.5)
            canvas.quad(
                place,
                unit * wide,
                (0, -min(tall, top), 0),
                what,
                tint=(bright,) * 3,
                lit=bright == 1.0,
            )


def eye_in(rng: np.random.Generator, w: float, h: float, d: float) -> tuple[float, float, float]:
    return (
        float(rng.uniform(0.1, 0.9) * w),
        float(np.clip(rng.normal(1.45, 0.35), 0.4, h - 0.2)),
        float(rng.uniform(0.1, 0.9) * d),
    )


def towards(rng: np.random.Generator, eye: tuple[float, float, float], w: float, d: float) -> float:
    """A yaw that looks across the room rather than at the next wall."""
    x, z = rng.uniform(0, w), rng.uniform(0, d)
    return math.atan2(x - eye[0], z - eye[2]) + rng.normal(0, 0.3)


def room(rng: np.random.Generator, library: Library, pixels: int) -> tuple[Canvas, str]:
    """A living room, bedroom, office, bathroom or hall."""
    size, focal = camera(
        rng, pixels, any_aspect(rng) if rng.random() < 0.4 else 4 / 3, rng.uniform(50, 90)
    )
    w, h, d = rng.uniform(2.2, 8), rng.uniform(2.3, 3.6), rng.uniform(2.5, 9)
    eye = eye_in(rng, w, h, d)
    roll = rng.normal(0, 0.03) if rng.random() < 0.7 else rng.normal(0, 0.25)
    canvas = Canvas(
        size,
        focal,
        eye,
        indoors(rng),
        yaw=towards(rng, eye, w, d),
        pitch=rng.normal(-0.15, 0.22),
        roll=roll,
    )
    shell(canvas, library, w, h, d)
    furniture(canvas, library, w, h, d, int(rng.integers(3, 12)))
    return canvas, "in"


def kitchen(rng: np.random.Generator, library: Library, pixels: int) -> tuple[Canvas, str]:
    """Counters and cupboards along the walls, a table with chairs."""
    size, focal = camera(rng, pixels, 4 / 3, rng.uniform(50, 75))
    w, h, d = rng.uniform(2.5, 5), rng.uniform(2.3, 3), rng.uniform(2.5, 5.5)
    eye = eye_in(rng, w, h, d)
    eye = (float(np.clip(eye[0], 0.8, w - 0.8)), eye[1], float(np.clip(eye[2], 0.8, d - 0.8)))
    canvas = Canvas(
        size,
        focal,
        eye,
        indoors(rng),
        yaw=towards(rng, eye, w, d),
        pitch=rng.normal(-0.3, 0.2),
        roll=rng.normal(0, 0.12),
    )
    shell(canvas, library, w, h, d)
    counters(canvas, library, w, h, d)
    if rng.random() < 0.7:
        place = (rng.uniform(0.3, 0.7) * w, 0, rng.uniform(0.3, 0.7) * d)
        table(canvas, library, place)
        for _ in range(int(rng.integers(0, 4))):
            chair(
                canvas,
                library,
                (place[0] + rng.normal(0, 0.7), 0, place[2] + rng.normal(0, 0.7)),
                rng.uniform(0, 6.3),
            )
    return canvas, "in"


def table_top(rng: np.random.Generator, library: Library, pixels: int) -> tuple[Canvas, str]:
    """Things on a table, a shelf or the ground, seen from close by; or a heap of them."""
    size, focal = camera(rng, pixels, any_aspect(rng), rng.uniform(40, 70))
    height = rng.uniform(0.15, 0.7)
    pitch = -rng.uniform(0.15, 1.2)
    back = height / math.tan(-pitch)
    canvas = Canvas(
        size,
        focal,
        (0, height, -back),
        indoors(rng),
        yaw=rng.normal(0, 0.2),
        pitch=pitch,
        roll=rng.normal(0, 0.1),
    )
    deep, wide = rng.uniform(0.3, 1.5), rng.uniform(0.5, 2)
    canvas.quad(
        (-wide, 0, deep),
        (2 * wide, 0, 0),
        (0, 0, -deep - 2),
        library.surface(0.8),
        gloss=rng.uniform(0, 0.4),
    )
    distance = rng.uniform(deep, deep + 3)
    if rng.random() < 0.6:
        canvas.quad((-6, 3, distance), (12, 0, 0), (0, -4.5, 0), library.surface(2.5))
        canvas.quad((-6, -0.75, distance), (12, 0, 0), (0, 0, -8), library.surface(1.5))
    else:
        canvas.quad((-6, 3, distance), (12, 0, 0), (0, -4.5, 0), library.picture(2.0))
    if rng.random() < 0.3:  # a heap of one kind
        size_, texture, tint = (
            rng.uniform(0.02, 0.09),
            library.surface(0.2),
            hue(rng, 0.3, 1.1, 1.0),
        )
        for _ in range(60):
            x, z = rng.normal(0, 0.25), rng.normal(0, 0.25)
            r = size_ * rng.uniform(0.8, 1.2, 3)
            y = size_ * (0.6 + 2.5 * rng.random() * math.exp(-(x * x + z * z) / 0.06))
            canvas.ellipsoid(
                (x, y, z), r, texture, tint=tint * rng.uniform(0.7, 1.2), heading=rng.uniform(0, 6)
            )
    else:
        for _ in range(int(rng.integers(2, 14))):
            small_thing(canvas, library, (rng.normal(0, 0.3), 0, rng.normal(0, 0.25)), 1.0)
    return canvas, "in"


def near(rng: np.random.Generator, library: Library, pixels: int) -> tuple[Canvas, str]:
    """A person, an animal, a plant or a thing close up, in front of a street, a room, the country
    or a photo."""
    kind = rng.random()
    if kind < 0.25:
        canvas, where = street(rng, library, pixels)
    elif kind < 0.5:
        canvas, where = room(rng, library, pixels)
    elif kind < 0.75:
        canvas, where = country(rng, library, pixels)
    else:
        size, focal = camera(rng, pixels, any_aspect(rng), rng.uniform(35, 60))
        canvas, where = (
            Canvas(
                size,
                focal,
                (0, 1.3, 0),
                indoors(rng),
                pitch=rng.normal(0, 0.1),
                roll=rng.normal(0, 0.05),
            ),
            "in",
        )
        distance = rng.uniform(2, 12)
        canvas.quad(
            (-distance, 1.3 + distance, distance),
            (2 * distance, 0, 0),
            (0, -2 * distance, 0),
            library.picture(),
        )
        floor(canvas, library, "earth", -50, 50, -1, 60)
    forward = canvas.rotation[2] * (1, 0, 1)
    forward = forward / (np.linalg.norm(forward) + 1e-9)
    side = np.array([forward[2], 0, -forward[0]])
    ground = canvas.eye * (1, 0, 1)
    for _ in range(int(rng.integers(1, 4))):
        far = math.exp(rng.uniform(math.log(0.5), math.log(4)))
        place = ground + forward * far + side * rng.normal(0, 0.25) * far
        kind = rng.random()
        if kind < 0.55:
            person(
                canvas,
                library,
                place,
                seated=canvas.eye[1] - rng.uniform(1.5, 1.75) if far < 1.5 else 0.0,
            )
        elif kind < 0.7:
            tree(canvas, library, place, small=True)
        elif kind < 0.85:
            tall = rng.uniform(0.3, 1.2) * far
            up = canvas.eye[1] + tall * rng.uniform(0, 0.8)
            canvas.quad(
                place + (0, up, 0) - side * tall / 2, side * tall, (0, -tall, 0), library.cut_out()
            )
        else:
            small_thing(
                canvas,
                library,
                place + (0, canvas.eye[1] - rng.uniform(0.2, 0.6) * far, 0),
                2.5 * far,
            )
    return canvas, where


def country(rng: np.random.Generator, library: Library, pixels: int) -> tuple[Canvas, str]:
    """Meadow, beach, water or path, with trees, rocks, hills."""
    size, focal = camera(rng, pixels, any_aspect(rng), rng.uniform(40, 80))
    eye = (0, rng.uniform(0.4, 2.5), 0)
    canvas = Canvas(
        size, focal, eye, outdoors(rng), pitch=rng.normal(-0.05, 0.12), roll=rng.normal(0, 0.04)
    )
    kinds = ["grass", "grass", "earth", "sand", "water", "snow"]
    floor(canvas, library, str(rng.choice(kinds)), -400, 400, -2, 250)
    if rng.random() < 0.4:
        x = rng.uniform(-3, 1)
        floor(
            canvas,
            library,
            str(rng.choice(["earth", "asphalt", "paving"])),
            x,
            x + rng.uniform(1, 3),
            -2,
            200,
            0.01,
        )
    if rng.random() < 0.3:
        z = rng.uniform(8, 60)
        floor(canvas, library, "water", -400, 400, z, z + rng.uniform(10, 100), 0.01)
    for _ in range(int(rng.integers(0, 5))):
        x, z, r = rng.normal(0, 60), rng.uniform(60, 200), rng.uniform(20, 60)
        canvas.ellipsoid(
            (x, -r * 0.3, z + r),
            (r * 1.6, r * 0.7, r),
            library.ground("grass"),
            tint=hue(rng, 0.4, 1, 0.4),
        )
    for _ in range(int(rng.integers(0, 14))):
        z = 2 + rng.exponential(25)
        tree(canvas, library, (rng.normal(0, 4 + z * 0.5), 0, z))
    for _ in range(int(rng.integers(0, 12))):
        z = 1.5 + rng.exponential(6)
        r = rng.uniform(0.1, 0.6) * (1 + z / 6)
        canvas.ellipsoid(
            (rng.normal(0, 2 + z * 0.4), r * 0.3, z),
            (r, r * rng.uniform(0.4, 1), r),
            library.surface(0.8),
            heading=rng.uniform(0, 6),
        )
    if rng.random() < 0.3:
        z = rng.uniform(4, 30)
        for x in np.arange(-20, 20, rng.uniform(1, 3)):
            canvas.box((x, 0, z), (0.12, 1.1, 0.12), library.surface(0.5))
        for y in (0.5, 0.9):
            canvas.box((0, y, z), (40, 0.1, 0.05), library.surface(0.5))
    if rng.random() < 0.2:
        house(
            canvas,
            library,
            0,
            rng.uniform(15, 60),
            rng.uniform(-25, 10),
            rng.uniform(8, 15),
            shop=False,
        )
    backdrop(canvas, library, rng.uniform(120, 240))
    return canvas, "out"


MAKERS = {
    "road": road,
    "street": street,
    "room": room,
    "kitchen": kitchen,
    "table": table_top,
    "near": near,
    "country": country,
}


def make(
    kind: str, rng: np.random.Generator, library: Library, pixels: int
) -> tuple[Image.Image, np.ndarray]:
    """One picture and its depth in metres, float32 (H, W), infinite for the sky."""
    for _ in range(20):
        canvas, where = MAKERS[kind](rng, library, pixels)
        seen = np.isfinite(canvas.depth) & (canvas.depth < FAR)
        if seen.mean() > 0.3 and np.percentile(canvas.depth[seen], 95) > 1.3 * np.percentile(
            canvas.depth[seen], 5
        ):
            break
    image = developed(canvas, rng, library, where)
    if kind in ("near", "table") and rng.random() < 0.5:
        image = blurred_behind(image, canvas.depth, rng)
    return image, canvas.depth


def save(name: str, image: Image.Image, depth: np.ndarray, folder: Path, quality: int) -> None:
    """The map first: a photo without a map is a picture still to be made."""
    seen = np.isfinite(depth) & (depth < FAR)
    metre = METRE * 2 ** int(np.clip(np.log2(FAR / max(float(depth[seen].max()), 1e-3)), 0, 4))
    stored = np.where(
        seen, np.clip(np.rint(np.where(seen, depth, 0) * metre), 1, 65534), 65535
    ).astype(np.uint16)
    said = PngImagePlugin.PngInfo()
    said.add_text("depth-kind", "metres")
    said.add_text("depth-unit", f"{metre} = one metre; 65535 = sky")
    Image.fromarray(stored).save(folder / "depth" / f"{name}.png", pnginfo=said)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    beside = folder / "photos" / f".{name}.part"
    beside.write_bytes(buffer.getvalue())
    os.replace(beside, folder / "photos" / f"{name}.jpg")


def work(task: tuple[int, int, int, Path, list[Path], int, tuple[str, ...]]) -> int:
    """Makes every `step`-th picture from `first` on; how many were new."""
    first, step, count, folder, textures, seed, kinds = (
        task[0],
        task[1],
        task[2],
        task[3],
        task[4],
        task[5],
        task[6][1:],
    )
    pixels = int(task[6][0])
    library = Library(np.random.default_rng(seed), textures)
    weights = np.array([SHARES[k] for k in kinds])
    made = 0
    for number in range(first, count, step):
        rng = np.random.default_rng([seed, number])
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        name = f"{kind}_{seed}_{number:06d}"
        if (folder / "photos" / f"{name}.jpg").exists():
            continue
        library.rng = rng
        image, depth = make(kind, rng, library, pixels)
        save(name, image, depth, folder, int(rng.integers(45, 96)))
        made += 1
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--textures", type=Path, action="append", default=[], help="a folder of photos; repeatable"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pixels", type=int, default=30000, help="of a picture")
    parser.add_argument("--kinds", default=",".join(SHARES), help="of scenes")
    arguments = parser.parse_args()
    kinds = tuple(arguments.kinds.split(","))
    if unknown := set(kinds) - set(SHARES):
        parser.error(
            f"no such kind of scene: {', '.join(sorted(unknown))}; there are {', '.join(SHARES)}"
        )
    for part in ("photos", "depth"):
        (arguments.out / part).mkdir(parents=True, exist_ok=True)
    jobs = max(1, arguments.jobs)
    rest = (str(arguments.pixels), *kinds)
    tasks = [
        (k, jobs, arguments.count, arguments.out, arguments.textures, arguments.seed, rest)
        for k in range(jobs)
    ]
    if jobs == 1:
        made = work(tasks[0])
    else:
        with ProcessPoolExecutor(jobs) as pool:
            made = sum(pool.map(work, tasks))
    print(f"{made} new pictures in {arguments.out}")


if __name__ == "__main__":
    main()
