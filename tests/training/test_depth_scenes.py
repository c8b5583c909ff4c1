"""Pictures with exact depth by `recipes/depth_scenes.py`: the depth is true, files say what they
hold, the seed decides all."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from kit import script
from PIL import Image

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def raster() -> ModuleType:
    sys.path.insert(0, str(RECIPES))
    try:
        import depth_raster
    finally:
        sys.path.remove(str(RECIPES))
    return depth_raster


@pytest.fixture(scope="module")
def scenes(raster: ModuleType) -> ModuleType:
    sys.path.insert(0, str(RECIPES))
    try:
        import depth_scenes
    finally:
        sys.path.remove(str(RECIPES))
    return depth_scenes


def canvas(raster: ModuleType, **turned: float):  # type: ignore[no-untyped-def]
    return raster.Canvas(
        (60, 80), 70.0, (0.0, 1.5, 0.0), raster.Light((0, 1, 0), 0.5, 0.5), **turned
    )


def plain(raster: ModuleType):  # type: ignore[no-untyped-def]
    return raster.Texture(np.full((8, 8, 3), 0.5, np.float32))


def test_the_ground_lies_where_geometry_puts_it(raster: ModuleType) -> None:
    c = canvas(raster)
    c.quad((-500, 0, 900), (1000, 0, 0), (0, 0, -900), plain(raster))
    rows = np.arange(34, 60)
    expected = 1.5 * 70 / (rows + 0.5 - 30)  # height * focal / rows below the horizon
    np.testing.assert_allclose(c.depth[34:, 40], expected, rtol=1e-4)
    assert np.isinf(c.depth[:30]).all()  # sky


def test_turning_the_camera_keeps_planar_depth(raster: ModuleType) -> None:
    wall = ((-50, 50, 10), (100, 0, 0), (0, -100, 0))
    c = canvas(raster, yaw=0.3)
    c.quad(*wall, plain(raster))
    x = (np.arange(80) + 0.5 - 40) / 70
    # the wall z = 10 is met by the ray (x, 0, 1) turned to the right by 0.3 after 10 / (cos - x
    # sin) along the axis
    np.testing.assert_allclose(c.depth[30], 10 / (math.cos(0.3) - x * math.sin(0.3)), rtol=1e-4)
    c = canvas(raster, roll=0.4)
    c.quad(*wall, plain(raster))
    np.testing.assert_allclose(c.depth, 10, rtol=1e-4)


def test_bodies_hide_what_lies_behind_them(raster: ModuleType) -> None:
    c = canvas(raster)
    c.ellipsoid((0, 1.5, 6), (1, 1, 2), plain(raster))
    c.quad((-50, 50, 10), (100, 0, 0), (0, -100, 0), plain(raster))
    assert c.depth[30, 40] == pytest.approx(4, abs=0.01)  # 6 - 2
    assert c.depth[2, 2] == pytest.approx(10, rel=1e-4)
    c.box((0, 0, 3), (10, 0.5, 1), plain(raster))
    below = c.depth[59, 40]  # the box's top or front, nearer than the ball
    assert 2.3 < below < 3.6
    c.cylinder((-1, 1.5, 5), (0.5, 3, 0.5), plain(raster))
    column = round(40 - 1 / 5 * 70)
    assert c.depth[20, column] == pytest.approx(4.5, abs=0.05)


def test_every_kind_of_scene_gives_a_photo_with_depth_and_the_seed_decides(
    scenes: ModuleType,
) -> None:
    library = scenes.Library(np.random.default_rng(0), [])
    for number, kind in enumerate(scenes.SHARES):
        twice = []
        for _ in range(2):
            library.rng = np.random.default_rng([3, number])
            twice.append(scenes.make(kind, library.rng, library, 1500))
        (image, depth), (again, same) = twice
        assert image.size == depth.shape[::-1]
        assert 1000 < depth.size < 2000, kind
        assert np.array_equal(np.asarray(image), np.asarray(again)), kind
        assert np.array_equal(depth, same), kind
        seen = np.isfinite(depth)
        assert seen.mean() > 0.3, kind
        assert (depth[seen] > 0).all()
        assert np.percentile(depth[seen], 95) > 1.2 * np.percentile(depth[seen], 5), kind
        assert np.asarray(image).std() > 2, kind


def test_the_command_goes_on_where_it_stopped_and_files_say_what_they_hold(tmp_path: Path) -> None:
    def run(*options: str) -> tuple[int, str, str]:
        line = ("--out", tmp_path / "s", "--pixels", 1200, "--jobs", 1)
        return script(RECIPES / "depth_scenes.py", *line, *options)

    assert "2 new pictures" in run("--count", "2", "--kinds", "table,road")[1]
    before = {p.name: p.read_bytes() for p in (tmp_path / "s" / "photos").iterdir()}
    assert "1 new pictures" in run("--count", "3", "--kinds", "table,road")[1]
    photos = sorted((tmp_path / "s" / "photos").iterdir())
    assert len(photos) == 3
    assert all(before.get(p.name, p.read_bytes()) == p.read_bytes() for p in photos)
    code, _, errors = run("--count", "1", "--kinds", "moon")
    assert code == 2
    assert "no such kind of scene: moon" in errors

    from vizcomp.depth.values import read_values

    for photo in photos:
        values = read_values(tmp_path / "s" / "depth" / f"{photo.stem}.png")
        assert values.stated == "metres"
        assert values.numbers.min() > 0  # nothing unknown: sky is the farthest
        with Image.open(photo) as file:
            assert file.size == values.numbers.shape[::-1]
