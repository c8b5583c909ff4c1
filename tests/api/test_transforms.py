"""`vizcomp.transforms.Djpeg` in torchvision, in albumentations, and by itself."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vizcomp
from vizcomp.errors import InputError, SettingsError

torch = pytest.importorskip("torch")

PLAIN: dict[str, Any] = {"guide": "uniform", "table": "photo"}


def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    waves = 128 + 60 * np.sin(np.mgrid[:32, :48].sum(0) / 5)[..., None]
    return np.clip(waves + rng.normal(0, 5, (32, 48, 3)), 0, 255).astype(np.uint8)


def djpeg(**options: Any) -> Any:
    return vizcomp.transforms.Djpeg(**{"quality": (30, 70), **PLAIN, **options})


def test_all_kinds_of_images_become_the_same() -> None:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    change, tensor = djpeg(), torch.from_numpy(picture()).permute(2, 0, 1)

    def made(image: Any) -> Any:
        torch.manual_seed(3)
        return change(image)

    wanted = made(picture())
    assert not np.array_equal(wanted, picture())
    assert np.abs(wanted.astype(int) - picture()).mean() < 12
    assert np.array_equal(np.asarray(made(Image.fromarray(picture()))), wanted)
    assert np.array_equal(made(tensor).permute(1, 2, 0).numpy(), wanted)
    assert torch.equal((made(tensor.float() / 255) * 255).round().to(torch.uint8), made(tensor))
    image = made(tv_tensors.Image(tensor))
    assert type(image) is tv_tensors.Image
    assert torch.equal(image.as_subclass(torch.Tensor), made(tensor))
    batch = made(torch.stack([tensor, tensor]))
    assert torch.equal(batch[0], batch[1])
    assert torch.equal(batch[0], made(tensor))
    assert made(picture()[..., 0]).shape == (32, 48)
    rgba = made(Image.fromarray(picture()).convert("RGBA"))
    assert rgba.mode == "RGBA"


def test_of_a_sample_only_the_images_change() -> None:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    boxes = tv_tensors.BoundingBoxes([[0, 0, 3, 3]], format="XYXY", canvas_size=(32, 48))
    sample = {
        "image": Image.fromarray(picture()),
        "more": (boxes, 7, torch.zeros(3, 3)),
        "name": "a",
    }
    made = djpeg()(sample)
    assert not np.array_equal(np.asarray(made["image"]), picture())
    assert torch.equal(made["more"][0], boxes)
    assert (made["more"][1], made["name"]) == (7, "a")
    assert torch.equal(made["more"][2], torch.zeros(3, 3))
    tensor = torch.from_numpy(picture()).permute(2, 0, 1)
    image, label = djpeg()(tensor, torch.tensor(3))
    assert not torch.equal(image, tensor)
    assert int(label) == 3


def test_qualities_are_drawn_from_the_whole_range_by_the_seed() -> None:
    change = djpeg(quality=(30, 32))
    drawn = [change._drawn_quality(share) for share in (0.0, 0.34, 0.99)]
    assert drawn == [30, 31, 32]
    torch.manual_seed(1)
    first = [change(picture()) for _ in range(6)]
    torch.manual_seed(1)
    assert all(np.array_equal(change(picture()), each) for each in first)
    assert len({each.tobytes() for each in first}) > 1
    same = picture()
    assert djpeg(p=0.0)(same) is same


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"quality": (70, 30)}, SettingsError),
        ({"quality": 0}, SettingsError),
        ({"p": 2}, SettingsError),
        ({"guide": "dept"}, SettingsError),
        ({"qualty": 3}, TypeError),
    ],
)
def test_wrong_options_fail_where_the_pipeline_is_made(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        djpeg(**options)


@pytest.mark.parametrize(
    "image",
    [
        7,
        "a",
        torch.zeros(3, 8, 8) + 2,
        torch.zeros(5, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.int64),
    ],
)
def test_what_is_no_image(image: Any) -> None:
    with pytest.raises(InputError):
        djpeg()(image)


def test_in_albumentations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    albumentations = pytest.importorskip("albumentations", reason="albumentations is not installed")
    made = [albumentations.Compose([djpeg()], seed=137)(image=picture())["image"] for _ in range(2)]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], picture())
    change = pickle.loads(pickle.dumps(djpeg()))
    assert isinstance(change, vizcomp.transforms.Djpeg)
    both = albumentations.Compose([change, albumentations.HorizontalFlip(p=1.0)])(
        image=picture()[..., 0], mask=picture()[..., 1]
    )
    assert both["image"].shape == (32, 48)
    assert np.array_equal(both["mask"], picture()[:, ::-1, 1])
    assert change(Image.fromarray(picture())).size == (48, 32)
    with pytest.raises(InputError, match="not uint8"):
        albumentations.Compose([djpeg()])(image=picture().astype(np.float32))


class Photos(torch.utils.data.Dataset):  # type: ignore[misc]
    def __init__(self) -> None:
        self.change = djpeg()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(self.change(picture()))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_in_the_workers_of_a_loader(start: str) -> None:
    vizcomp.compress(picture())  # networks are open here before workers are started

    def read() -> Any:
        torch.manual_seed(5)
        loader = torch.utils.data.DataLoader(
            Photos(), batch_size=4, num_workers=1, multiprocessing_context=start
        )
        return next(iter(loader))

    first = read()
    assert torch.equal(first, read())
    assert len({each.numpy().tobytes() for each in first}) > 1
