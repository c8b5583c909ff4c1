"""A small rasteriser with exact depth, for `depth_scenes.py`: textured parallelograms, ellipsoids,
upright cylinders, a z-buffer.

The camera looks along z, x is to the right, y up. Depth is planar: the distance along the optical
axis, in metres. Every surface is drawn on the pixels of its own bounding box only, all of them at
once. For a parallelogram o + u a + v b seen through the pixel (x, y), (u, v, 1) / t is linear in x
and y, since [a b o] (u, v, 1) = t (x, y, 1).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Vector = npt.ArrayLike
NEAR = 0.05


class Texture:
    """A picture with all its halved sizes in one array, for look-ups at any scale.

    Args:
        pixels: float32 (h, w, 3) in 0..1, or (h, w, 4) with what is opaque in the fourth plane.
        size: of the picture in metres, (width, height), where it is repeated; None: once over the
            surface.
    """

    def __init__(self, pixels: Array, size: tuple[float, float] | None = None) -> None:
        self.size = size
        self.shape = pixels.shape[:2]
        levels, self.offsets, self.widths, self.heights = [], [], [], []
        total, level = 0, np.asarray(pixels, np.float32)
        if level.shape[2] == 3:
            level = np.concatenate([level, np.ones((*self.shape, 1), np.float32)], 2)
        self.opaque = bool(level[..., 3].min() > 0.5)
        while True:
            h, w = level.shape[:2]
            levels.append(level.reshape(-1, 4))
            self.offsets.append(total)
            self.heights.append(h)
            self.widths.append(w)
            total += h * w
            if min(h, w) < 4:
                break
            level = level[: h // 2 * 2, : w // 2 * 2]
            level = (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2]) / 4
        self.pixels = np.concatenate(levels)
        self._tables = tuple(np.asarray(x) for x in (self.offsets, self.heights, self.widths))

    def look_up(self, u: Array, v: Array, step: Array) -> Array:
        """Colours and opacity (n, 4) at (u, v), 1 = the whole picture; `step` is the share of it
        that a pixel covers."""
        level = np.log2(np.maximum(step * max(self.shape), 1.0)).astype(np.int64)
        np.minimum(level, len(self.offsets) - 1, out=level)
        offsets, heights, widths = (table[level] for table in self._tables)
        column = ((u - np.floor(u)) * widths).astype(np.int64)
        row = ((v - np.floor(v)) * heights).astype(np.int64)
        np.minimum(column, widths - 1, out=column)
        np.minimum(row, heights - 1, out=row)
        return self.pixels[offsets + row * widths + column]


@dataclasses.dataclass
class Light:
    """Where light comes from.

    Attributes:
        sun: unit vector towards it.
        strength: of the sun; the rest is ambient.
        ambient: from all sides.
    """

    sun: tuple[float, float, float]
    strength: float
    ambient: float

    def shade(self, normal: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Brightness of surfaces with these unit normals, (..., 3) to (...)."""
        return self.ambient + self.strength * np.maximum(normal @ np.asarray(self.sun), 0.0)


class Canvas:
    """A picture being drawn, and its depth.

    Args:
        size: (height, width) in pixels.
        focal: focal length in pixels.
        eye: of the camera, in metres.
        yaw, pitch, roll: in radians; 0 looks along z, a positive pitch looks up, a positive yaw to
            the right.

    Attributes:
        colour: float32 (H, W, 3) in 0..1 and a little beyond.
        depth: float32 (H, W), metres along the optical axis; infinite where nothing is.
    """

    def __init__(
        self,
        size: tuple[int, int],
        focal: float,
        eye: Vector,
        light: Light,
        *,
        yaw: float = 0,
        pitch: float = 0,
        roll: float = 0,
    ) -> None:
        self.height, self.width = size
        self.focal, self.light = focal, light
        self.eye = np.asarray(eye, np.float64)
        cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        lean = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        self.rotation = lean @ tilt @ turn  # world to camera
        self.colour = np.zeros((*size, 3), np.float32)
        self.depth = np.full(size, np.inf, np.float32)
        self.xs = ((np.arange(self.width) + 0.5 - self.width / 2) / focal).astype(np.float32)
        self.ys = (-(np.arange(self.height) + 0.5 - self.height / 2) / focal).astype(np.float32)

    def camera(self, point: Vector) -> npt.NDArray[np.float64]:
        """World points (..., 3) in the camera's frame."""
        return (np.asarray(point, np.float64) - self.eye) @ self.rotation.T

    def directions(self) -> npt.NDArray[np.float64]:
        """World directions of all pixels, unit length, (H, W, 3)."""
        rays = np.stack(
            [
                *np.broadcast_arrays(self.xs[None], self.ys[:, None]),
                np.ones((self.height, self.width)),
            ],
            -1,
        )
        return (rays / np.linalg.norm(rays, axis=-1, keepdims=True)) @ self.rotation

    def _box(self, corners: npt.NDArray[np.float64]) -> tuple[slice, slice] | None:
        """Pixels that can see the convex hull of points in the camera's frame; None for none."""
        z = corners[:, 2]
        if (z <= NEAR).all():
            return None
        # clipped edges: their crossings of the near plane stand for the points behind it
        if (z <= NEAR).any():
            inside = corners[z > NEAR]
            outside = corners[z <= NEAR]
            share = (NEAR - outside[:, None, 2]) / (inside[None, :, 2] - outside[:, None, 2])
            cut = outside[:, None] + share[..., None] * (inside[None] - outside[:, None])
            corners = np.concatenate([inside, cut.reshape(-1, 3)])
            z = np.maximum(corners[:, 2], NEAR)
        px = corners[:, 0] / z * self.focal + self.width / 2
        py = -corners[:, 1] / z * self.focal + self.height / 2
        left, right = max(0, math.floor(px.min())), min(self.width, math.ceil(px.max()))
        top, bottom = max(0, math.floor(py.min())), min(self.height, math.ceil(py.max()))
        return None if left >= right or top >= bottom else (slice(top, bottom), slice(left, right))

    def quad(
        self,
        origin: Vector,
        across: Vector,
        down: Vector,
        texture: Texture,
        *,
        tint: Vector = (1.0, 1.0, 1.0),
        gloss: float = 0.0,
        lit: bool = True,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """A parallelogram from its upper left corner; the texture's rows run along `down`.

        Args:
            gloss: how much of a white sheen towards grazing angles is added.
            lit: whether light and shade fall on it.
            shift: of the texture, as shares of it.
        """
        o = self.camera(origin)
        a, b = (np.asarray(x, np.float64) @ self.rotation.T for x in (across, down))
        box = self._box(np.stack([o, o + a, o + b, o + a + b]))
        matrix = np.stack([a, b, o], 1)
        if box is None or abs(np.linalg.det(matrix)) < 1e-9:
            return
        inverse = np.linalg.inv(matrix).astype(np.float32)
        x, y = self.xs[None, box[1]], self.ys[box[0], None]
        per_t = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = 1 / per_t
            u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * t
            v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * t
            hit = (t > NEAR) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1) & (t < self.depth[box])
        if not hit.any():
            return
        t, u, v = t[hit], u[hit], v[hit]
        long, high = float(np.linalg.norm(a)), float(np.linalg.norm(b))
        wide, tall = texture.size or (long, high)
        normal = np.cross(a, b)
        normal /= np.linalg.norm(normal) + 1e-12
        facing = np.abs(normal @ o) / np.maximum(
            t * np.linalg.norm(o) / max(o[2], 1e-6) if o[2] > NEAR else t, 1e-6
        )
        step = t / self.focal / min(wide, tall) / np.clip(facing, 0.15, 1.0) ** 0.5
        found = texture.look_up(u * long / wide + shift[0], v * high / tall + shift[1], step)
        world = normal @ self.rotation
        if world @ (self.eye - np.asarray(origin)) < 0:
            world = -world
        shade = float(self.light.shade(world)) if lit else 1.0
        colour = found[:, :3] * (np.asarray(tint, np.float32) * shade)
        if gloss:
            colour += (gloss * (1 - np.clip(facing, 0, 1)) ** 3)[:, None].astype(np.float32)
        self._put(box, hit, t, colour, None if texture.opaque else found[:, 3] > 0.5)

    def _put(
        self,
        box: tuple[slice, slice],
        hit: npt.NDArray[np.bool_],
        t: Array,
        colour: Array,
        opaque: object,
    ) -> None:
        if opaque is not None:
            chosen = np.flatnonzero(hit)[opaque]
            hit = np.zeros_like(hit)
            hit.reshape(-1)[chosen] = True
            t, colour = t[opaque], colour[opaque]
        self.depth[box][hit] = t
        self.colour[box][hit] = colour

    def box(
        self, corner: Vector, size: Vector, texture: Texture, *, heading: float = 0.0, **how: object
    ) -> None:
        """An upright box. `corner` is the middle of its floor, `size` (width, height, length),
        turned by `heading` about y."""
        x, y, z = np.asarray(corner, np.float64)
        w, h, d = np.asarray(size, np.float64)
        c, s = math.cos(heading), math.sin(heading)
        right, forward, up = np.array([c, 0, -s]), np.array([s, 0, c]), np.array([0, 1, 0])
        middle = np.array([x, y, z])
        for normal, side, across, down in (
            (-forward, d / 2, w * right, -h * up),
            (forward, d / 2, -w * right, -h * up),
            (-right, w / 2, -d * forward, -h * up),
            (right, w / 2, d * forward, -h * up),
        ):
            centre = middle + normal * side + up * h / 2
            if normal @ (self.eye - centre) > 0:
                self.quad(centre - across / 2 - down / 2, across, down, texture, **how)  # type: ignore[arg-type]
        for level, normal in ((h, up), (0.0, -up)):
            centre = middle + up * level
            if normal @ (self.eye - centre) > 0:
                across, down = w * right, -d * forward
                self.quad(centre - across / 2 - down / 2, across, down, texture, **how)  # type: ignore[arg-type]

    def ellipsoid(
        self,
        centre: Vector,
        radii: Vector,
        texture: Texture,
        *,
        tint: Vector = (1.0, 1.0, 1.0),
        heading: float = 0.0,
        ragged: float = 0.0,
    ) -> None:
        """An ellipsoid with upright axis, its texture wrapped around. `ragged`: share of it that is
        open, in patches."""
        self._quadric(centre, radii, texture, tint, heading, ragged, round_=True)

    def cylinder(
        self,
        centre: Vector,
        radii: Vector,
        texture: Texture,
        *,
        tint: Vector = (1.0, 1.0, 1.0),
        heading: float = 0.0,
    ) -> None:
        """An upright cylinder without ends; `radii` are those in x and z and half its height in
        y."""
        self._quadric(centre, radii, texture, tint, heading, 0.0, round_=False)

    def _quadric(
        self,
        centre: Vector,
        radii: Vector,
        texture: Texture,
        tint: Vector,
        heading: float,
        ragged: float,
        round_: bool,
    ) -> None:
        middle = self.camera(centre)
        r = np.asarray(radii, np.float64)
        c, s = math.cos(heading), math.sin(heading)
        own = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])  # world to the body's own axes
        axes = (own / r[:, None]) @ self.rotation.T  # camera to the body's unit frame
        corners = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) * r
        box = self._box(self.camera(np.asarray(centre) + corners @ own))
        if box is None:
            return
        p = axes @ middle
        rays = np.stack(
            [*np.broadcast_arrays(self.xs[None, box[1]], self.ys[box[0], None])], 0
        ).reshape(2, -1)
        q = (axes[:, :2] @ rays + axes[:, 2:]).astype(np.float32)  # (3, n)
        used = slice(None) if round_ else slice(0, 3, 2)
        qq, qp, pp = (
            (q[used] ** 2).sum(0),
            (q[used] * p[used, None]).sum(0),
            float((p[used] ** 2).sum()),
        )
        under = qp * qp - qq * (pp - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = ((qp - np.sqrt(under)) / qq).astype(np.float32)
            hit = (under > 0) & (t > NEAR) & (t < self.depth[box].reshape(-1))
            if not round_:
                hit &= np.abs(t * q[1] - p[1]) <= 1
        if not hit.any():
            return
        t = t[hit]
        body = q[:, hit] * t - p[:, None]  # (3, n) on the unit body
        normal = body.copy() if round_ else body * np.array([1, 0, 1])[:, None]
        normal = (normal / r[:, None]).T
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        world = normal @ own
        u = (np.arctan2(body[0], -body[2]) / (2 * math.pi) + 0.5).astype(np.float32)
        v = (0.5 - body[1] / 2).astype(np.float32)
        around, tall = 2 * math.pi * float(max(r[0], r[2])), 2 * float(r[1])
        wide, high = texture.size or (around, tall)
        found = texture.look_up(
            u * around / wide, v * tall / high, t / self.focal / min(wide, high)
        )
        shade = self.light.shade(world).astype(np.float32)
        colour = found[:, :3] * np.asarray(tint, np.float32) * shade[:, None]
        opaque = None if texture.opaque else found[:, 3] > 0.5
        if ragged:
            whole = found[:, :3].sum(1) + 0.35 * np.sin(31 * u + 17 * v) > 3 * ragged
            opaque = whole if opaque is None else opaque & whole
        self._put(box, hit.reshape(self.depth[box].shape), t, colour, opaque)

    def darken(
        self, centre: Vector, radius: tuple[float, float], strength: float, heading: float = 0.0
    ) -> None:
        """A soft shadow on whatever lies near an upright ellipse's floor at `centre`: within a
        hand's breadth of its height."""
        x, y, z = np.asarray(centre, np.float64)
        reach = 1.4 * max(radius)
        box = self._box(
            self.camera(
                np.array([[x + i * reach, y, z + k * reach] for i in (-1, 1) for k in (-1, 1)])
            )
        )
        if box is None:
            return
        rays = np.stack([*np.broadcast_arrays(self.xs[None, box[1]], self.ys[box[0], None])], -1)
        rays = np.concatenate([rays, np.ones((*rays.shape[:2], 1), np.float32)], -1) @ self.rotation
        with np.errstate(invalid="ignore"):
            place = (
                self.eye
                + rays * np.where(np.isfinite(self.depth[box]), self.depth[box], 0)[..., None]
            )
        c, s = math.cos(heading), math.sin(heading)
        dx, dz = place[..., 0] - x, place[..., 2] - z
        far = ((c * dx - s * dz) / radius[0]) ** 2 + ((s * dx + c * dz) / radius[1]) ** 2
        shadow = strength * np.clip(1.6 - far, 0, 1) * (np.abs(place[..., 1] - y) < 0.06)
        self.colour[box] *= (1 - shadow)[..., None].astype(np.float32)
