"""Training on what is stored: d-JPEG as a transform of torchvision v2 and of albumentations.

    v2.Compose([v2.RandomCrop(224), vizcomp.transforms.Djpeg(quality=(30, 70)), v2.ToImage()])
    A.Compose([A.RandomCrop(224, 224), vizcomp.transforms.Djpeg(quality=(30, 70))])

Neither library is imported here; what is loaded already decides what an instance can do.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.api.single import check_options, compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, SettingsError
from vizcomp.photos.photo import decode_jpeg

Pixels = npt.NDArray[np.uint8]


class Djpeg:
    """Images as they are after `vizcomp.compress`, at a quality drawn anew for each call.

    In torchvision pipelines and by itself it takes what `v2` transforms take: a PIL image, an image
    tensor (..., C, H, W) of uint8 or of float in 0..1 with 1 or 3 channels, a uint8 array (H, W) or
    (H, W, 3), or a sample: a tuple, list or dict, in which all images get the same quality and all
    else stays. As with `v2`, a plain tensor of a sample counts as its image only where it is the
    first and there is neither a PIL image nor a `tv_tensors.Image`. In albumentations pipelines it
    is an `ImageOnlyTransform` for uint8 (H, W) or (H, W, 3); import albumentations before making
    it.

    The quality is drawn by torch's generator where torch is loaded, else by `random`; in an
    albumentations pipeline by that pipeline's. So `torch.manual_seed`, the seeds of a DataLoader's
    workers and `A.Compose(seed=...)` hold.

    Args:
        quality: one quality, or the least and the most of those to draw from, whole numbers.
        p: the share of calls in which it does anything.
        options: as of `vizcomp.compress`; `guide="uniform"` spares the networks and is many times
            quicker.

    Raises:
        SettingsError: a value is out of its range.
        TypeError: an unknown option.
    """

    def __new__(cls, *args: Any, **options: Any) -> Djpeg:
        if cls is Djpeg and "albumentations" in sys.modules:
            cls = _for_albumentations()
        return super().__new__(cls)

    def __init__(
        self, quality: float | tuple[float, float] = (30, 70), *, p: float = 1.0, **options: Any
    ) -> None:
        low, high = quality if isinstance(quality, tuple | list) else (quality, quality)
        for each in (low, high):
            DjpegSettings(quality=each)
        if low > high:
            raise SettingsError(f"`quality` goes from {low} to {high}", "give the lower one first")
        if not 0 <= p <= 1:
            raise SettingsError(f"`p` {p} is out of range", "it goes from 0 to 1")
        for name in ("max_side", "short_side", "scale"):
            if options.get(name) is not None:
                raise SettingsError(
                    f"`{name}` would give images of another size",
                    "resize in the pipeline, or omit it",
                )
        if options.get("lossless"):
            raise SettingsError("`lossless` is for files, and changes no pixel", "omit it")
        check_options(options)  # here, not in the workers of a loader
        self.quality = (low, high)
        self.p = p
        self.options = options

    def __call__(self, *inputs: Any) -> Any:
        sample = inputs[0] if len(inputs) == 1 else inputs
        if not self._draw() < self.p:
            return sample
        quality = self._drawn_quality(self._draw())
        return _mapped(sample, _image_test(sample), lambda image: self._applied(image, quality))

    def _draw(self) -> float:
        """0 or more, less than 1."""
        torch = sys.modules.get("torch")
        return random.random() if torch is None else float(torch.rand(()))

    def _drawn_quality(self, share: float) -> float:
        low, high = self.quality
        return low if low == high else min(high, low + int(share * (int(high) - int(low) + 1)))

    def pixels(self, image: Pixels, quality: float) -> Pixels:
        """An image, uint8 (H, W) or (H, W, 3), as it is after compression at a quality; of the same
        shape."""
        image = np.asarray(image)
        pixels = decode_jpeg(compress(image, quality=quality, **self.options).data)
        return pixels if pixels.shape == image.shape else pixels.reshape(image.shape)

    def _applied(self, image: Any, quality: float) -> Any:
        if isinstance(image, Image.Image):
            return _of_pil(image, lambda pixels: self.pixels(pixels, quality))
        if isinstance(image, np.ndarray):
            return self.pixels(image, quality)
        return _of_tensor(image, lambda pixels: self.pixels(pixels, quality))

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Djpeg(quality={self.quality}, p={self.p}{options})"


def _of_pil(image: Image.Image, change: Callable[[Pixels], Pixels]) -> Image.Image:
    """Grey stays grey, alpha stays as it is, all other modes become RGB."""
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    plain = (
        image
        if image.mode in ("L", "RGB")
        else image.convert("L" if image.mode in ("LA", "1") else "RGB")
    )
    changed = Image.fromarray(change(np.asarray(plain)))
    if alpha is not None:
        changed.putalpha(alpha)
    changed.info = dict(image.info)
    return changed


def _of_tensor(image: Any, change: Callable[[Pixels], Pixels]) -> Any:
    """(..., C, H, W), uint8 or float in 0..1, on any device; the subclass of the tensor is kept."""
    torch = sys.modules["torch"]
    if image.ndim < 2 or (image.ndim > 2 and image.shape[-3] not in (1, 3)):
        raise InputError(
            f"a tensor of the shape {tuple(image.shape)} is no image",
            "images are (..., C, H, W) with 1 or 3 channels",
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise InputError(f"a tensor of {image.dtype} is no image", "use uint8, or float in 0..1")
    with torch.no_grad():
        plain = image.detach().as_subclass(torch.Tensor).cpu()
        if image.is_floating_point():
            if not bool(((plain >= 0) & (plain <= 1)).all()):
                raise InputError(
                    "an image tensor has numbers outside of 0..1", "put Djpeg before v2.Normalize"
                )
            plain = (plain.float() * 255).round().to(torch.uint8)
        flat = plain.reshape(-1, *plain.shape[-3:]) if plain.ndim > 2 else plain[None, None]
        images = torch.stack([_changed(each, change) for each in flat]).reshape(plain.shape)
        if image.is_floating_point():
            images = (images.to(image.dtype) / 255).to(image.dtype)
        images = images.to(image.device)
    return _like(images, image)


def _changed(image: Any, change: Callable[[Pixels], Pixels]) -> Any:
    torch = sys.modules["torch"]
    grey = image.shape[0] == 1
    pixels = image[0].numpy() if grey else np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    changed = torch.from_numpy(np.array(change(pixels)))
    return changed[None] if grey else changed.permute(2, 0, 1)


def _like(changed: Any, image: Any) -> Any:
    if type(image) is sys.modules["torch"].Tensor:
        return changed
    from torchvision import tv_tensors

    return tv_tensors.wrap(changed, like=image)


def _image_test(sample: Any) -> Callable[[Any], bool]:
    """Which leaves of a sample are its images."""
    torch = sys.modules.get("torch")
    tv_tensors = sys.modules.get("torchvision.tv_tensors")
    leaves = list(_leaves(sample))

    def marked(leaf: Any) -> bool:
        if isinstance(leaf, Image.Image):
            return True
        return tv_tensors is not None and isinstance(leaf, tv_tensors.Image | tv_tensors.Video)

    def plain(leaf: Any) -> bool:
        if isinstance(leaf, np.ndarray):
            return leaf.dtype == np.uint8 and (
                leaf.ndim == 2 or (leaf.ndim == 3 and leaf.shape[2] in (1, 3))
            )
        return torch is not None and type(leaf) is torch.Tensor

    if any(map(marked, leaves)):
        return marked
    first = next((leaf for leaf in leaves if plain(leaf)), None)
    if first is None:
        raise InputError(
            f"a {type(sample).__name__} holds no image",
            "give a PIL image, a tensor, a uint8 array, or a sample of these",
        )
    return lambda leaf: leaf is first


def _leaves(sample: Any) -> Iterator[Any]:
    if isinstance(sample, dict | tuple | list):
        for value in sample.values() if isinstance(sample, dict) else sample:
            yield from _leaves(value)
    else:
        yield sample


def _mapped(sample: Any, chosen: Callable[[Any], bool], change: Callable[[Any], Any]) -> Any:
    """The sample with some of its leaves changed."""
    if isinstance(sample, dict):
        return type(sample)({key: _mapped(value, chosen, change) for key, value in sample.items()})
    if isinstance(sample, tuple) and hasattr(sample, "_fields"):
        return type(sample)(*(_mapped(value, chosen, change) for value in sample))
    if isinstance(sample, tuple | list):
        return type(sample)(_mapped(value, chosen, change) for value in sample)
    return change(sample) if chosen(sample) else sample


@functools.lru_cache(maxsize=1)
def _for_albumentations() -> type[Any]:
    """The same as a transform of albumentations."""
    from albumentations import ImageOnlyTransform

    class AlbumentationsDjpeg(Djpeg, ImageOnlyTransform):  # type: ignore[misc]
        __doc__ = Djpeg.__doc__

        def __init__(
            self, quality: float | tuple[float, float] = (30, 70), *, p: float = 1.0, **options: Any
        ) -> None:
            ImageOnlyTransform.__init__(self, p=p)
            Djpeg.__init__(self, quality, p=p, **options)

        def __call__(self, *inputs: Any, **named: Any) -> Any:
            if inputs:
                return Djpeg.__call__(self, *inputs)
            return ImageOnlyTransform.__call__(self, **named)

        def get_params(self) -> dict[str, Any]:
            return {"quality": self._drawn_quality(self.py_random.random())}

        def apply(self, img: Pixels, quality: float = 50, **params: Any) -> Pixels:
            if img.dtype != np.uint8:
                raise InputError(
                    f"the image holds {img.dtype}, not uint8",
                    "put Djpeg before A.Normalize and A.ToFloat",
                )
            return self.pixels(img, quality)

        def get_transform_init_args(self) -> dict[str, Any]:
            return {"quality": self.quality, **self.options}

    AlbumentationsDjpeg.__module__ = __name__
    AlbumentationsDjpeg.__qualname__ = "AlbumentationsDjpeg"
    return AlbumentationsDjpeg


def __getattr__(name: str) -> Any:
    if name == "AlbumentationsDjpeg":  # what is pickled in a pipeline of albumentations
        return _for_albumentations()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
