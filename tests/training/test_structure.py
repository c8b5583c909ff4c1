"""The loss of structure and its gradient, and photos that are kept out by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vizcomp.errors import SettingsError
from vizcomp.metrics import MS_SSIM_WEIGHTS
from vizcomp.training.codec import CodecTask
from vizcomp.training.codec_data import PhotoData
from vizcomp.training.codec_settings import CodecTrainSettings
from vizcomp.training.losses import colour_error, reconstruction_losses
from vizcomp.training.processes import open_processes
from vizcomp.training.structure import C1, C2, ms_ssim_loss, scales_of

TINY = {"preset": "photo", "width": 0.1, "bits": [2, 2, 2]}


def plain(image: torch.Tensor, source: torch.Tensor, scales: int) -> torch.Tensor:
    """MS-SSIM by convolutions and autograd, windows of the finest scale at every second pixel."""
    weights = torch.tensor(MS_SSIM_WEIGHTS[:scales], dtype=image.dtype)
    total = torch.ones(len(image), dtype=image.dtype)
    for k, weight in enumerate((weights / weights.sum()).tolist()):
        side = min(11, *image.shape[-2:])
        side -= 1 - side % 2
        at = torch.arange(side, dtype=image.dtype) - side // 2
        line = torch.exp(-(at**2) / 4.5)
        window = torch.outer(line, line) / line.sum() ** 2

        def mean(one: torch.Tensor, kernel: torch.Tensor = window, k: int = k) -> torch.Tensor:
            kernel = kernel.expand(3, 1, *kernel.shape)
            return F.conv2d(one, kernel, groups=3, stride=2 if k == 0 and scales > 1 else 1)

        mx, my = mean(image), mean(source)
        vx, vy = mean(image**2) - mx**2, mean(source**2) - my**2
        term = (2 * (mean(image * source) - mx * my) + C2) / (vx + vy + C2)
        if k == scales - 1:
            term = term * (2 * mx * my + C1) / (mx**2 + my**2 + C1)
        total = total * term.mean((1, 2, 3)) ** weight
        image, source = F.avg_pool2d(image, 2), F.avg_pool2d(source, 2)
    return 1 - total.mean()


@pytest.mark.parametrize(("scales", "height", "width"), [(3, 44, 60), (1, 20, 13), (2, 16, 9)])
def test_structure_and_its_gradient(scales: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    source = torch.rand(2, 3, height, width, dtype=torch.float64)
    noise = torch.rand_like(source)
    image = (0.7 * source + 0.3 * noise).requires_grad_()
    expected, found = plain(image, source, scales), ms_ssim_loss(image, scales_of(source, scales))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    (wanted,) = torch.autograd.grad(expected, image)
    (slope,) = torch.autograd.grad(found * 3, image)
    assert torch.allclose(slope, 3 * wanted, rtol=1e-5, atol=1e-9)


def test_losses_of_several_images_are_those_of_each() -> None:
    torch.manual_seed(0)
    source, images = torch.rand(2, 3, 32, 32), [torch.rand(2, 3, 32, 32) for _ in range(3)]
    for kind in ("l1", "l2", "ms-ssim"):
        each = [reconstruction_losses(kind, [image], source)[0] for image in images]
        assert torch.equal(
            torch.stack(reconstruction_losses(kind, images, source)), torch.stack(each)
        )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(5):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        small.resize((80, 64), Image.Resampling.BICUBIC).save(folder / f"p{i}.png")
    return folder


def settings(photos: Path, **changes: object) -> CodecTrainSettings:
    values: dict[str, object] = {
        "data": str(photos),
        "network": TINY,
        "steps": 2,
        "batch": 4,
        "crop": 32,
        "task_weight": 0,
        "iterations": "all",
        "contexts": False,
        "device": "cpu",
    }
    return CodecTrainSettings(**{**values, **changes})  # type: ignore[arg-type]


def test_photos_are_kept_out_by_name(photos: Path) -> None:
    with open_processes("cpu") as processes:
        data = PhotoData(settings(photos, held=["p3", "p1"]), processes)
        assert data.source == "3 photos"
        kept = [np.asarray(Image.open(photos / f"p{i}.png")) for i in (1, 3)]
        assert [one.tobytes() for one in data.held] == [one.tobytes() for one in kept]
        assert not {one.tobytes() for one in kept} & {one.tobytes() for one in data.samples(9)}
        with pytest.raises(SettingsError, match="no photo is called p9"):
            PhotoData(settings(photos, held=["p9"]), processes)
        with pytest.raises(SettingsError, match="all photos are kept out"):
            PhotoData(settings(photos, held=[f"p{i}" for i in range(5)]), processes)


@pytest.mark.parametrize(("share", "halved"), [(0.0, 0), (1.0, 8)])
def test_the_share_of_crops_at_half_the_size(photos: Path, share: float, halved: int) -> None:
    """Random pixels lose their spread where four become one."""
    with open_processes("cpu") as processes:
        data = PhotoData(settings(photos, smaller=share, batch=8), processes)
        data._pool = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)]
        spread = data.batch(0)[0].std((1, 2, 3))
    assert int((spread < 0.4).sum()) == halved


def test_colour_counts_less_in_later_iterations(photos: Path) -> None:
    with open_processes("cpu") as processes:
        task = CodecTask(settings(photos, colour_weight=1.0, later_colour=0.25), processes)
        source = task.data.batch(0)[0]
        found = task._loss(source, None, 1.0)[1]["colour"]
        with torch.no_grad():
            images, _ = task.model(source, 3)
    each = [float(colour_error(image, source)) for image in images]
    expected = (each[0] + each[1] / 2 + each[2] / 4) / 1.75
    assert float(found) == pytest.approx(expected, rel=1e-4)
