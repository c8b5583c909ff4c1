"""Things for `depth_scenes.py`, put together from the rasteriser's surfaces: cars, people, trees,
houses, furniture."""

# ruff: noqa: RUF005  (`place + (0, y, 0)` adds to an array)
from __future__ import annotations

import math

import numpy as np
from depth_raster import Canvas, Texture, Vector
from depth_textures import Library, hue


def _flat(colour: Vector) -> Texture:
    return Texture(np.ones((4, 4, 3), np.float32) * np.asarray(colour, np.float32))


def car(
    canvas: Canvas, library: Library, place: Vector, heading: float, *, moving: bool = False
) -> None:
    """A car, van or lorry; `place` is the middle of its floor, `heading` 0 goes along z."""
    rng = library.rng
    kind = rng.random()
    length, width, height = rng.uniform(3.6, 4.9), rng.uniform(1.65, 1.9), rng.uniform(1.4, 1.75)
    if kind > 0.93 and moving:
        length, width, height = rng.uniform(6, 12), 2.4, rng.uniform(2.6, 3.8)
    elif kind > 0.8:
        length, width, height = rng.uniform(4.5, 6), 2.0, rng.uniform(1.9, 2.6)
    tall = height > 1.85
    paint = (
        hue(rng, 0.05, 1.1, 0.9)
        if rng.random() < 0.5
        else np.full(3, rng.choice([0.06, 0.15, 0.3, 0.55, 0.8, 1.0]))
    )
    glass = hue(rng, 0.03, 0.3, 0.2)
    c, s = math.cos(heading), math.sin(heading)
    right, forward, up = np.array([c, 0, -s]), np.array([s, 0, c]), np.array([0, 1.0, 0])
    middle = np.asarray(place, float)
    clear = 0.2
    waist = clear + (0.62 if not tall else 0.7) * min(1.0, height / 1.6)
    canvas.darken(middle, (width * 0.62, length * 0.55), rng.uniform(0.3, 0.8), heading)
    canvas.box(
        middle + up * clear,
        (width, waist - clear, length),
        _flat(paint),
        heading=heading,
        gloss=rng.uniform(0, 0.4),
    )
    # the cabin: a box that narrows upwards, on the body
    front, rear = (
        (0.42 if tall else rng.uniform(0.1, 0.22)) * length,
        -(0.49 if tall else rng.uniform(0.3, 0.49)) * length,
    )
    lean = 0.25 if tall else rng.uniform(0.35, 0.75)
    inner = width * rng.uniform(0.36, 0.42)
    low, high = waist, height
    roof_front, roof_rear = front - lean, rear + (0.05 if tall else lean * rng.uniform(0.3, 1))
    roof = middle + up * high

    def sheet(
        a: np.ndarray, across: np.ndarray, down: np.ndarray, colour: np.ndarray, gloss: float
    ) -> None:
        canvas.quad(a, across, down, _flat(colour), gloss=gloss)

    sheet(
        roof + forward * roof_front - right * inner,
        right * 2 * inner,
        forward * (roof_rear - roof_front),
        paint,
        0.4,
    )
    drop = up * (low - high)
    for end, top, sign in ((front, roof_front, 1), (rear, roof_rear, -1)):
        slope = drop + forward * (end - top)
        start = roof + forward * top - right * inner * sign
        sheet(start, right * 2 * inner * sign, slope, paint if tall and sign < 0 else glass, 0.5)
    pixels = np.zeros((32, 96, 4), np.float32)
    rows = np.linspace(0, 1, 32)[:, None]
    z = np.linspace(rear, front, 96)[None]
    inside = (z < roof_front + rows * (front - roof_front)) & (
        z > roof_rear + rows * (rear - roof_rear)
    )
    window = inside & (rows > 0.12) & (rows < 0.9) & (np.abs(z - (front + rear) / 2) > 0.05)
    if tall:
        window &= z > front - length * (0.25 if rng.random() < 0.6 else 0.85)
    pixels[..., :3] = np.where(window[..., None], glass, paint)
    pixels[..., 3] = inside
    cabin = Texture(pixels)
    wheel = Texture(_disc(rng))
    for sign in (-1, 1):
        outer = right * sign * (inner + width / 2) / 2
        start = roof + outer + forward * rear
        canvas.quad(start, forward * (front - rear), drop, cabin, gloss=0.4)
        r = rng.uniform(0.29, 0.36) if not tall else 0.4
        for at in (0.31, -0.31):
            corner = (
                middle
                + right * sign * (width / 2 + 0.01)
                + forward * (at * length - r)
                + up * 2 * r
            )
            canvas.quad(corner, forward * 2 * r, -up * 2 * r, wheel)
    lamp = (1.2, 1.15, 1.0) if rng.random() < 0.6 else (0.8, 0.78, 0.7)
    for end, colour in ((0.501, lamp), (-0.501, (0.8, 0.05, 0.05))):
        for sign in (-1, 1):
            corner = (
                middle
                + forward * end * length
                + right * (sign * width * 0.36 - 0.16)
                + up * (waist - 0.06)
            )
            canvas.quad(corner, right * 0.32, -up * 0.17, _flat(colour), lit=False)
        corner = middle + forward * end * length - right * 0.26 + up * (clear + 0.25)
        canvas.quad(corner, right * 0.52, -up * 0.12, _flat((0.9, 0.9, 0.85)))
        canvas.quad(
            corner - right * 0.3 - up * 0.15, right * 1.12, -up * 0.12, _flat((0.04, 0.04, 0.04))
        )


def _disc(rng: np.random.Generator) -> np.ndarray:
    """A wheel: tyre and rim, float32 (32, 32, 4)."""
    y, x = np.mgrid[0:32, 0:32] - 15.5
    radius = np.hypot(y, x)
    spokes = np.sin(np.arctan2(y, x) * rng.integers(4, 8)) > -0.3
    rim = (radius < 10) & spokes
    colour = np.where(rim[..., None], rng.uniform(0.3, 0.9), 0.04)
    return np.concatenate(
        [np.repeat(colour, 3, 2) if colour.shape[2] == 1 else colour, (radius < 15.5)[..., None]], 2
    ).astype(np.float32)


def person(canvas: Canvas, library: Library, place: Vector, *, seated: float = 0.0) -> None:
    """Someone standing at `place`; `seated` moves the whole figure up or down, in metres."""
    rng = library.rng
    x, y, z = np.asarray(place, float)
    y += seated
    tall = rng.uniform(1.5, 1.9)
    heading = rng.uniform(0, 2 * math.pi)
    c, s = math.cos(heading), math.sin(heading)
    right, forward = np.array([c, 0, -s]), np.array([s, 0, c])
    at = np.array([x, y, z])
    up = np.array([0, 1.0, 0])
    skin = np.array([1.0, 0.78, 0.62]) * rng.uniform(0.35, 1.0)
    hair = hue(rng, 0.03, 0.6, 0.4)
    top = library.surface(0.4) if rng.random() < 0.5 else library.plain(0.05, 1.0, 0.9)
    legs = library.plain(0.05, 0.7, 0.5)
    canvas.darken((x, y, z), (0.4, 0.4), 0.5)
    head = tall - 0.12
    canvas.ellipsoid(
        at + up * head,
        (0.078, 0.115, 0.095),
        library.plain(0.95, 1.05, 0.0),
        tint=skin,
        heading=heading,
    )
    canvas.ellipsoid(
        at + up * (head + 0.035) - forward * 0.02,
        (0.085, 0.105, 0.098),
        library.plain(0.9, 1.1, 0.1),
        tint=hair,
        heading=heading,
    )
    face = at + up * head + forward * 0.012
    canvas.ellipsoid(
        face + up * -0.01 + forward * 0.012,
        (0.074, 0.1, 0.092),
        library.plain(0.95, 1.05, 0.0),
        tint=skin,
        heading=heading,
    )
    for sign in (-1, 1):  # eyes, and the arms and legs of that side
        canvas.ellipsoid(
            face + up * 0.01 + forward * 0.095 + right * sign * 0.03,
            (0.014, 0.008, 0.01),
            _flat((0.05, 0.04, 0.04)),
        )
        swing = rng.normal(0, 0.12)
        canvas.ellipsoid(
            at + up * tall * 0.66 + right * sign * 0.235 + forward * swing * 0.5,
            (0.055, 0.3, 0.06),
            top,
            heading=heading,
        )
        canvas.ellipsoid(
            at + up * tall * 0.48 + right * sign * 0.25 + forward * swing,
            (0.04, 0.09, 0.045),
            library.plain(),
            tint=skin,
        )
        canvas.ellipsoid(
            at + up * tall * 0.25 + right * sign * 0.1 + forward * rng.normal(0, 0.1),
            (0.085, tall * 0.27, 0.1),
            legs,
        )
    canvas.cylinder(at + up * (head - 0.14), (0.055, 0.07, 0.055), library.plain(), tint=skin)
    canvas.ellipsoid(at + up * tall * 0.66, (0.2, tall * 0.2, 0.13), top, heading=heading)
    canvas.ellipsoid(at + up * tall * 0.78, (0.225, 0.1, 0.11), top, heading=heading)
    if rng.random() < 0.3:
        canvas.box(
            at + up * tall * 0.55 - forward * 0.22,
            (0.3, 0.45, 0.16),
            library.surface(0.3),
            heading=heading,
        )


def pole(canvas: Canvas, library: Library, place: Vector) -> None:
    """A lamp post, a sign, a bollard, a bin."""
    rng = library.rng
    x, y, z = np.asarray(place, float)
    kind = rng.random()
    grey = _flat(hue(rng, 0.1, 0.8, 0.3))
    if kind < 0.45:
        h, r = rng.uniform(4, 9), rng.uniform(0.05, 0.13)
        canvas.cylinder((x, y + h / 2, z), (r, h / 2, r), grey)
        canvas.box((x - math.copysign(0.6, x), y + h - 0.1, z), (1.3, 0.1, 0.2), grey)
    elif kind < 0.75:
        h, w = rng.uniform(2, 3), rng.uniform(0.4, 0.9)
        canvas.cylinder((x, y + h / 2, z), (0.035, h / 2, 0.035), grey)
        pixels = np.ones((32, 32, 4), np.float32) * (*hue(rng, 0.3, 1, 1), 1)
        gy, gx = np.mgrid[-1:1:32j, -1:1:32j]
        if rng.random() < 0.6:
            pixels[..., 3] = np.hypot(gy, gx) < 0.98
            pixels[..., :3] = np.where(
                (np.hypot(gy, gx) > 0.75)[..., None], hue(rng, 0.6, 1, 1), pixels[..., :3]
            )
        canvas.quad((x - w / 2, y + h, z - 0.05), (w, 0, 0), (0, -w, 0), Texture(pixels))
    elif kind < 0.88:
        canvas.cylinder((x, y + 0.45, z), (0.07, 0.45, 0.07), grey)
    else:
        canvas.box(
            (x, y, z),
            (0.5, rng.uniform(0.8, 1.3), 0.5),
            library.plain(0.1, 0.8, 0.8),
            heading=rng.uniform(0, 1),
        )


def tree(canvas: Canvas, library: Library, place: Vector, *, small: bool = False) -> None:
    """A tree or a bush; `small`: a plant of knee to head height."""
    rng = library.rng
    x, y, z = np.asarray(place, float)
    bush = rng.random() < 0.3
    tall = rng.uniform(3, 12) if not bush else rng.uniform(0.6, 2.5)
    tall = rng.uniform(0.4, 2.0) if small else tall
    leaves = library.leaves()
    trunk = 0.0 if bush else tall * rng.uniform(0.15, 0.4)
    if not bush:
        r = tall * rng.uniform(0.015, 0.035)
        bark = Texture(hue(rng, 0.15, 0.5, 0.3) * library.grain(0.3), (0.5, 1.5))
        canvas.cylinder((x, y + tall * 0.35, z), (r, tall * 0.35, r), bark)
        canvas.darken((x, y, z), (tall * 0.3, tall * 0.3), 0.4)
    crown = tall - trunk
    if not bush and rng.random() < 0.2:  # a conifer
        for k in range(7):
            r = crown * 0.22 * (1 - k / 8)
            canvas.ellipsoid((x, y + trunk + crown * (k + 0.5) / 7.5, z), (r, crown / 8, r), leaves)
        return
    for _ in range(int(rng.integers(3, 9))):
        r = crown * rng.uniform(0.18, 0.4)
        dx, dz = rng.normal(0, crown * 0.16, 2)
        up = y + trunk + crown * rng.uniform(0.2, 0.75)
        canvas.ellipsoid(
            (x + dx, up, z + dz),
            (r, r * rng.uniform(0.6, 1), r),
            leaves,
            tint=np.full(3, rng.uniform(0.7, 1.2)),
        )


def house(
    canvas: Canvas,
    library: Library,
    side: int,
    edge: float,
    start: float,
    length: float,
    *,
    shop: bool,
) -> None:
    """A house along a street: `side` -1 left, 1 right, its front at x = side * edge. 0: its front
    faces -z at z = edge."""
    rng = library.rng
    storeys = int(rng.integers(1, 6))
    storey = rng.uniform(2.7, 3.6)
    h, deep = storeys * storey, rng.uniform(6, 14)
    front = library.front(storeys, max(1, round(length / rng.uniform(2, 4))), shop)
    plain = library.plain(0.35, 1.0, 0.4)
    if side:
        x = side * edge
        canvas.quad(
            (x, h, start + (length if side < 0 else 0)),
            (0, 0, -side * -length if side > 0 else -length),
            (0, -h, 0),
            front,
        )
        for z in (start, start + length):
            canvas.quad((x, h, z), (side * deep, 0, 0), (0, -h, 0), plain)
        origin, along, inwards = (
            np.array([x, h, start]),
            np.array([0, 0, length]),
            np.array([side * deep, 0, 0]),
        )
    else:
        canvas.quad((start, h, edge), (length, 0, 0), (0, -h, 0), front)
        for x in (start, start + length):
            canvas.quad((x, h, edge), (0, 0, deep), (0, -h, 0), plain)
        origin, along, inwards = (
            np.array([start, h, edge]),
            np.array([length, 0, 0]),
            np.array([0, 0, deep]),
        )
    if rng.random() < 0.6:  # a roof that slopes towards the street
        rise = np.array([0, rng.uniform(1.5, 4), 0])
        overhang = -inwards / np.linalg.norm(inwards) * 0.4
        canvas.quad(
            origin + inwards / 2 + rise,
            along,
            -inwards / 2 - rise + overhang,
            library.bricks(hue(rng, 0.2, 0.7, 0.7), 1.5),
        )
    outwards = -inwards / np.linalg.norm(inwards)
    # balconies, awnings, signs that stick out
    for _ in range(int(rng.integers(0, 4)) if storeys > 1 else 0):
        at = along * rng.uniform(0.1, 0.8)
        level = storey * rng.integers(1, storeys)
        out, wide = rng.uniform(0.4, 1.5), min(rng.uniform(1, 4), length * 0.3)
        unit = along / np.linalg.norm(along)
        corner = origin + at + np.array([0, level - h, 0])
        texture = library.plain(0.2, 1, 0.8)
        canvas.quad(corner, unit * wide, outwards * out, texture)
        tall = rng.uniform(0.2, 1.1)
        canvas.quad(corner + outwards * out + (0, tall, 0), unit * wide, (0, -tall, 0), texture)
        for e in (0, wide):
            canvas.quad(corner + unit * e + (0, tall, 0), outwards * out, (0, -tall, 0), texture)


def backdrop(canvas: Canvas, library: Library, distance: float) -> None:
    """Far ridges all around."""
    rng = library.rng
    for far in (distance, distance * 0.8):
        h = rng.uniform(4, 40)
        texture = library.ridge(hue(rng, 0.2, 0.7, 0.5) * np.array([0.8, 1, 0.9], np.float32))
        for x, z, across in (
            (-far, far, (2 * far, 0, 0)),
            (-far, -far, (0, 0, 2 * far)),
            (far, far, (0, 0, -2 * far)),
        ):
            canvas.quad((x, h, z), across, (0, -h - 0.5, 0), texture)


# --- indoors


def table(
    canvas: Canvas, library: Library, place: Vector, size: tuple[float, float, float] | None = None
) -> None:
    """A table, perhaps round, with things on it; `size` (width, height, length)."""
    rng = library.rng
    at = np.asarray(place, float)
    w, h, d = size or (rng.uniform(0.6, 1.8), rng.uniform(0.4, 0.78), rng.uniform(0.5, 1.2))
    heading = rng.uniform(0, 6.3) if rng.random() < 0.4 else 0.0
    texture = library.surface(1.0)
    c, s = math.cos(heading), math.sin(heading)
    canvas.darken(at, (w * 0.5, d * 0.5), 0.4, heading)
    if rng.random() < 0.25:
        y, x = np.mgrid[-1:1:64j, -1:1:64j]
        base = texture.pixels[: texture.shape[0] * texture.shape[1], :3].reshape(*texture.shape, 3)
        rows, columns = np.arange(64) % base.shape[0], np.arange(64) % base.shape[1]
        top = np.concatenate([base[rows][:, columns], (np.hypot(y, x) < 1)[..., None]], 2).astype(
            np.float32
        )
        canvas.quad(at + (-w / 2, h, w / 2), (w, 0, 0), (0, 0, -w), Texture(top), gloss=0.3)
        canvas.cylinder(at + (0, h / 2, 0), (0.05, h / 2, 0.05), library.plain(0.1, 0.8, 0.3))
    else:
        canvas.box(
            at + (0, h - 0.04, 0), (w, 0.04, d), texture, heading=heading, gloss=rng.uniform(0, 0.4)
        )
        for i in (-1, 1):
            for k in (-1, 1):
                dx, dz = i * (w / 2 - 0.06), k * (d / 2 - 0.06)
                canvas.box(
                    at + (c * dx + s * dz, 0, -s * dx + c * dz),
                    (0.06, h - 0.04, 0.06),
                    texture,
                    heading=heading,
                )
    for _ in range(int(rng.integers(0, 7))):
        dx, dz = rng.uniform(-0.4, 0.4) * w, rng.uniform(-0.4, 0.4) * min(w, d)
        small_thing(canvas, library, at + (c * dx + s * dz, h, -s * dx + c * dz), 1.0)


def small_thing(canvas: Canvas, library: Library, place: Vector, scale: float) -> None:
    """A cup, a bottle, a book, a box, a ball, a sheet of paper, a bowl of fruit, a vase of
    flowers."""
    rng = library.rng
    at = np.asarray(place, float)
    kind = rng.integers(8)
    k = scale
    canvas.darken(at, (0.09 * k, 0.09 * k), 0.4)
    heading = rng.uniform(0, 6.3)
    if kind == 0:
        r, h = rng.uniform(0.03, 0.06) * k, rng.uniform(0.05, 0.15) * k
        canvas.cylinder(at + (0, h / 2, 0), (r, h / 2, r), library.surface(0.15 * k))
        pixels = np.zeros((16, 16, 4), np.float32) + 0.1
        y, x = np.mgrid[-1:1:16j, -1:1:16j]
        pixels[..., 3] = np.hypot(y, x) < 1
        canvas.quad(at + (-r, h * 0.97, r), (2 * r, 0, 0), (0, 0, -2 * r), Texture(pixels))
    elif kind == 1:
        r, h = rng.uniform(0.03, 0.045) * k, rng.uniform(0.15, 0.32) * k
        texture = library.surface(0.2 * k)
        canvas.cylinder(at + (0, h * 0.35, 0), (r, h * 0.35, r), texture)
        canvas.ellipsoid(at + (0, h * 0.7, 0), (r, h * 0.1, r), texture)
        canvas.cylinder(at + (0, h * 0.85, 0), (r * 0.4, h * 0.15, r * 0.4), texture)
    elif kind == 2:
        canvas.box(
            at,
            (0.16 * k, rng.uniform(0.01, 0.05) * k, 0.22 * k),
            library.picture(0.7),
            heading=heading,
        )
    elif kind == 3:
        w, h, d = rng.uniform(0.05, 0.3, 3) * k
        canvas.box(
            at,
            (w, h, d),
            library.picture() if rng.random() < 0.5 else library.surface(0.3 * k),
            heading=heading,
        )
    elif kind == 4:
        r = rng.uniform(0.025, 0.1) * k
        canvas.ellipsoid(
            at + (0, r, 0),
            (r, r * rng.uniform(0.8, 1.2), r),
            library.surface(0.2 * k),
            tint=hue(rng, 0.4, 1.2, 1),
        )
    elif kind == 5:
        c, s = math.cos(heading), math.sin(heading)
        across, down = np.array([c, 0, -s]) * 0.21 * k, np.array([-s, 0, -c]) * 0.297 * k
        canvas.quad(
            at + (0, 0.003 * k, 0) - across / 2 - down / 2, across, down, library.picture(0.7)
        )
    elif kind == 6:
        canvas.ellipsoid(
            at + (0, 0.05 * k, 0), (0.13 * k, 0.05 * k, 0.13 * k), library.plain(0.3, 1, 0.5)
        )
        for _ in range(5):
            r = 0.04 * k
            canvas.ellipsoid(
                at + (rng.normal(0, 0.05) * k, 0.1 * k, rng.normal(0, 0.05) * k),
                (r, r, r),
                library.plain(0.3, 1, 1),
            )
    else:
        canvas.cylinder(at + (0, 0.1 * k, 0), (0.05 * k, 0.1 * k, 0.05 * k), library.surface(0.3))
        leaves, bloom = library.leaves(), hue(rng, 0.5, 1.1, 1.0)
        for n in range(9):
            dx, up, dz = rng.normal(0, 0.08), rng.uniform(0.25, 0.45), rng.normal(0, 0.08)
            r = rng.uniform(0.02, 0.06) * k
            texture = leaves if n % 2 else _flat(bloom)
            canvas.ellipsoid(at + np.array([dx, up, dz]) * k, (r, r, r), texture)


def chair(canvas: Canvas, library: Library, place: Vector, heading: float) -> None:
    """A seat on four legs, with a back of boards or whole."""
    rng = library.rng
    at = np.asarray(place, float)
    c, s = math.cos(heading), math.sin(heading)
    texture = library.surface(0.6)
    w, h = rng.uniform(0.38, 0.5), rng.uniform(0.42, 0.5)
    canvas.darken(at, (w * 0.5, w * 0.5), 0.4)
    canvas.box(at + (0, h - 0.04, 0), (w, 0.04, w), texture, heading=heading)
    back = at + np.array([-s, 0, -c]) * (w / 2 - 0.02)
    tall = rng.uniform(0.35, 0.6)
    if rng.random() < 0.5:
        canvas.box(back + (0, h, 0), (w, tall, 0.03), texture, heading=heading)
    else:
        for k in range(3):
            canvas.box(
                back + (0, h + tall * (0.25 + 0.25 * k), 0),
                (w, tall * 0.13, 0.03),
                texture,
                heading=heading,
            )
    for i in (-1, 1):
        for k in (-1, 1):
            dx, dz = i * (w / 2 - 0.02), k * (w / 2 - 0.02)
            up = h if k > 0 else h + tall
            canvas.box(
                at + (c * dx + s * dz, 0, -s * dx + c * dz),
                (0.04, up, 0.04),
                texture,
                heading=heading,
            )


def sofa(canvas: Canvas, library: Library, place: Vector, heading: float, width: float) -> None:
    """A sofa or an armchair with cushions."""
    rng = library.rng
    at = np.asarray(place, float)
    c, s = math.cos(heading), math.sin(heading)
    right, forward = np.array([c, 0, -s]), np.array([s, 0, c])
    texture = library.surface(1.0) if rng.random() < 0.6 else library.plain(0.1, 1, 0.8)
    canvas.darken(at, (width * 0.55, 0.55), 0.5, heading)
    canvas.box(at + (0, 0.08, 0), (width, 0.36, 0.85), texture, heading=heading)
    canvas.box(
        at - forward * 0.38 + (0, 0.08, 0),
        (width, rng.uniform(0.6, 0.9), 0.2),
        texture,
        heading=heading,
    )
    for sign in (-1, 1):
        canvas.box(
            at + right * sign * width / 2 + (0, 0.08, 0),
            (0.18, rng.uniform(0.45, 0.6), 0.85),
            texture,
            heading=heading,
        )
    for _ in range(int(rng.integers(0, 4))):
        spot = at + right * rng.uniform(-0.4, 0.4) * width - forward * 0.15 + (0, 0.6, 0)
        canvas.ellipsoid(spot, (0.22, 0.2, 0.1), library.surface(0.4), heading=heading)


def shelf(
    canvas: Canvas,
    library: Library,
    place: Vector,
    heading: float,
    size: tuple[float, float, float],
) -> None:
    """Open shelves with books and things."""
    rng = library.rng
    at = np.asarray(place, float)
    w, h, d = size
    c, s = math.cos(heading), math.sin(heading)
    right, forward = np.array([c, 0, -s]), np.array([s, 0, c])
    texture = library.surface(1.0)
    for sign in (-1, 1):
        canvas.box(at + right * sign * w / 2, (0.03, h, d), texture, heading=heading)
    start = at - forward * d / 2 - right * w / 2 + (0, h, 0)
    canvas.quad(start, right * w, (0, -h, 0), texture, tint=(0.6, 0.6, 0.6))
    levels = max(2, round(h / 0.36))
    for k in range(levels + 1):
        canvas.box(at + (0, k * h / levels * 0.98, 0), (w, 0.025, d), texture, heading=heading)
        if k < levels and rng.random() < 0.75:
            tall, wide = h / levels * rng.uniform(0.5, 0.85), w * rng.uniform(0.3, 0.95)
            spot = at + right * rng.uniform(-0.5, 0.5) * (w - wide) + (0, k * h / levels + 0.02, 0)
            canvas.box(spot, (wide, tall, d * 0.8), library.books(), heading=heading)


def cupboard(
    canvas: Canvas,
    library: Library,
    place: Vector,
    heading: float,
    size: tuple[float, float, float],
) -> None:
    """A cupboard or chest of drawers, with a top that juts out."""
    rng = library.rng
    w, h, _d = size
    texture = library.doors(
        max(1, round(w / rng.uniform(0.4, 0.7))), max(1, round(h / rng.uniform(0.2, 0.9)))
    )
    canvas.darken(place, (w * 0.55, size[2] * 0.6), 0.4, heading)
    canvas.box(place, size, texture, heading=heading, gloss=rng.uniform(0, 0.3))


def _along_wall(
    rng: np.random.Generator, w: float, d: float, half: float
) -> tuple[np.ndarray, float, float]:
    """A place at a wall, `half` in from it, the heading that faces the room, and the wall's
    length."""
    wall = rng.integers(4)
    share = rng.uniform(0.15, 0.85)
    spots = (
        ((share * w, 0, d - half), math.pi, w),
        ((share * w, 0, half), 0.0, w),
        ((half, 0, share * d), math.pi / 2, d),
        ((w - half, 0, share * d), -math.pi / 2, d),
    )
    place, heading, length = spots[wall]
    return np.asarray(place, float), heading, length


def furniture(canvas: Canvas, library: Library, w: float, h: float, d: float, count: int) -> None:
    """Furniture along the walls and in the middle of a room; nothing right in front of the
    camera."""
    rng = library.rng
    for _ in range(count):
        kind = rng.random()
        place, heading, long = _along_wall(rng, w, d, 0.35)
        free = np.array([rng.uniform(0.15, 0.85) * w, 0, rng.uniform(0.15, 0.85) * d])
        spot = free if kind < 0.4 else place
        if np.hypot(*(spot - canvas.eye)[[0, 2]]) < 0.8:
            continue
        if kind < 0.15:
            table(canvas, library, free)
        elif kind < 0.3:
            chair(canvas, library, free, rng.uniform(0, 6.3))
        elif kind < 0.36:
            r, tall = rng.uniform(0.15, 0.3), rng.uniform(1.2, 1.7)
            canvas.cylinder(free + (0, tall / 2, 0), (0.02, tall / 2, 0.02), _flat((0.3, 0.3, 0.3)))
            canvas.cylinder(free + (0, tall, 0), (r, 0.15, r), _flat((1.3, 1.2, 0.9)))
        elif kind < 0.4:
            tree(canvas, library, free, small=True)
        elif kind < 0.6:
            sofa(
                canvas, library, place + (0, 0, 0), heading, min(rng.uniform(0.8, 2.4), long * 0.7)
            )
        elif kind < 0.75:
            shelf(
                canvas, library, place, heading, (rng.uniform(0.5, 1.6), rng.uniform(0.8, 2.2), 0.3)
            )
        elif kind < 0.9:
            size = (
                min(rng.uniform(0.5, 1.8), long * 0.6),
                rng.uniform(0.5, 2.1),
                rng.uniform(0.4, 0.65),
            )
            cupboard(canvas, library, place, heading, size)
            if size[1] < 1.2:
                for _ in range(int(rng.integers(0, 4))):
                    small_thing(
                        canvas,
                        library,
                        place + (rng.normal(0, 0.15), size[1], rng.normal(0, 0.05)),
                        rng.uniform(1, 2),
                    )
        else:  # a bed
            size = (rng.uniform(0.9, 1.8), rng.uniform(0.4, 0.6), 2.0)
            canvas.box(free, size, library.surface(1.2), heading=heading)
            canvas.ellipsoid(
                free + (0, size[1], 0.8 * math.cos(heading)),
                (0.35, 0.1, 0.22),
                library.plain(0.6, 1.1, 0.3),
            )
    for _ in range(int(rng.integers(0, 3))):  # lamps under the ceiling
        x, z = rng.uniform(0.2, 0.8) * w, rng.uniform(0.2, 0.8) * d
        canvas.ellipsoid(
            (x, h - rng.uniform(0.05, 0.8), z), (0.2, 0.1, 0.2), _flat((1.5, 1.45, 1.2))
        )


def counters(canvas: Canvas, library: Library, w: float, h: float, d: float) -> None:
    """Kitchen counters along one to three walls, with a worktop, things on it, and cupboards
    above."""
    rng = library.rng
    colour_rows = int(rng.integers(1, 4))
    below, above = library.doors(6, colour_rows), library.doors(6, 1)
    if rng.random() < 0.6:
        above = below
    top, splash = (
        library.surface(1.0),
        library.tiles(rng.uniform(0.4, 1.2)) if rng.random() < 0.6 else library.plain(),
    )
    walls = [
        ((w / 2, 0, d - 0.3), math.pi, w),
        ((0.3, 0, d / 2), math.pi / 2, d),
        ((w - 0.3, 0, d / 2), -math.pi / 2, d),
    ]
    rng.shuffle(walls)
    for place, heading, long in walls[: int(rng.integers(1, 4))]:
        at = np.asarray(place, float)
        c, s = math.cos(heading), math.sin(heading)
        right, forward = np.array([c, 0, -s]), np.array([s, 0, c])
        canvas.box(at, (long, 0.86, 0.58), below, heading=heading, gloss=rng.uniform(0, 0.4))
        canvas.box(
            at + (0, 0.86, 0) + forward * 0.02,
            (long, 0.04, 0.62),
            top,
            heading=heading,
            gloss=rng.uniform(0, 0.4),
        )
        back = at - forward * 0.28
        canvas.quad(back - right * long / 2 + (0, 1.5, 0), right * long, (0, -0.6, 0), splash)
        for _ in range(int(rng.integers(2, 14))):
            small_thing(
                canvas,
                library,
                at
                + right * rng.uniform(-0.45, 0.45) * long
                - forward * rng.uniform(0, 0.2)
                + (0, 0.9, 0),
                1.3,
            )
        if rng.random() < 0.7:
            part = long * rng.uniform(0.4, 1.0)
            shift = right * rng.uniform(-0.5, 0.5) * (long - part)
            canvas.box(
                at - forward * 0.12 + shift + (0, 1.45, 0),
                (part, min(0.75, h - 1.5), 0.35),
                above,
                heading=heading,
            )
        elif rng.random() < 0.5:
            canvas.box(
                at - forward * 0.17 + (0, 1.5, 0), (long * 0.6, 0.03, 0.25), top, heading=heading
            )
            for _ in range(6):
                small_thing(
                    canvas,
                    library,
                    at + right * rng.uniform(-0.25, 0.25) * long - forward * 0.17 + (0, 1.53, 0),
                    1.2,
                )
