"""Figures of a codec in training, on the validation part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vizcomp.errors import SettingsError
from vizcomp.graphs.recurrent import RecurrentConfig
from vizcomp.metrics import ms_ssim
from vizcomp.nets.recurrent import RecurrentCodec
from vizcomp.training.codec_data import PhotoData
from vizcomp.training.frozen import FrozenClassifier
from vizcomp.training.losses import BitGuesser, colour_error
from vizcomp.training.pictures import Pictures
from vizcomp.vision.answers import Classes
from vizcomp.vision.systems import open_system

AtMost = Callable[[int, int], int]
JUDGED = 200  # pictures that the judge looks at


def class_numbers(pictures: Pictures, classifier: FrozenClassifier) -> torch.Tensor | None:
    """The classifier's number of each class of the data, int64 (classes,); None where it knows
    other classes.

    By their names where both say them, else by their order, where there are equally many.
    """
    known = {name: number for number, name in enumerate(classifier.classes)}
    if known and all(name in known for name in pictures.classes):
        return torch.tensor([known[name] for name in pictures.classes])
    if classifier.count == len(pictures.classes):
        return torch.arange(classifier.count)
    return None


class PictureScores:
    """PSNR, bits, what the classifier answers, and what a judge answers that has no part in the
    training."""

    def __init__(
        self,
        pictures: Pictures,
        config: RecurrentConfig,
        classifier: FrozenClassifier | None,
        judge: str,
        many: int,
    ) -> None:
        self._pictures, self._config, self._classifier, self._many = (
            pictures,
            config,
            classifier,
            many,
        )
        self._numbers = class_numbers(pictures, classifier) if classifier is not None else None
        self._judge = open_system(judge) if judge else None
        if self._judge is not None and self._judge.kind != "classes":
            raise SettingsError(
                f"the judge {judge} gives {self._judge.kind}, no classes", "give a classifier"
            )

    @torch.no_grad()
    def __call__(
        self, network: RecurrentCodec, guesser: BitGuesser | None, at_most: AtMost
    ) -> dict[str, float]:
        p, iterations = self._pictures, self._config.iterations
        count = min(at_most(100, self._many), len(p.held))
        if not count:
            return {}
        sums: dict[str, float] = {}

        def add(name: str, value: float) -> None:
            sums[name] = sums.get(name, 0.0) + value

        chosen = p.held[torch.arange(count) * len(p.held) // count]
        for part in torch.split(chosen, 250):
            part = part.to(p.held_images.device)
            source = p.held_images[part].float().div_(127.5).sub_(1)
            answer = self._classifier(source / 2 + 0.5) if self._classifier is not None else None
            hint = (
                F.log_softmax(answer, 1).clamp_min(-10)
                if self._config.given and answer is not None
                else None
            )
            wanted, word = self._wanted(answer, part)
            if answer is not None and self._numbers is not None:
                add("accuracy on sources", float((answer.argmax(1) == wanted).sum()))
            images, codes = network(source, iterations, given=hint)
            for t, (image, bits) in enumerate(zip(images, _bits(codes, guesser), strict=True), 1):
                image = image.clamp(-1, 1)
                add(
                    f"psnr at {t}",
                    float(
                        -10
                        * ((image - source) / 2)
                        .square()
                        .mean((1, 2, 3))
                        .clamp_min(1e-10)
                        .log10()
                        .sum()
                    ),
                )
                add(f"bits at {t}", bits * len(part))
                if self._classifier is not None:
                    add(
                        f"{word} at {t}",
                        float((self._classifier(image / 2 + 0.5).argmax(1) == wanted).sum()),
                    )
        figures = {name: value / count for name, value in sums.items()}
        return figures | self._judged(network, chosen[:: max(1, len(chosen) // JUDGED)][:JUDGED])

    def _wanted(
        self, answer: torch.Tensor | None, part: torch.Tensor
    ) -> tuple[torch.Tensor | None, str]:
        """What is to be answered, and what answering it is called: the labels, or the answer on the
        sources."""
        if answer is None:
            return None, ""
        if self._numbers is None:
            return answer.argmax(1), "agreement"
        return self._numbers.to(part.device)[self._pictures.held_labels[part]], "accuracy"

    def _judged(self, network: RecurrentCodec, chosen: torch.Tensor) -> dict[str, float]:
        if self._judge is None:
            return {}
        images = self._pictures.held_images[chosen.to(self._pictures.held_images.device)]
        sources = list(images.permute(0, 2, 3, 1).cpu().numpy())
        own = [_best(answer) for answer in self._judge.answers(sources)]
        source = images.float().div_(127.5).sub_(1)
        hint = None
        if self._config.given and self._classifier is not None:
            hint = F.log_softmax(self._classifier(source / 2 + 0.5), 1).clamp_min(-10)
        figures = {}
        for t, image in enumerate(network(source, self._config.iterations, given=hint)[0], 1):
            shown = (
                ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            )
            same = [
                _best(answer) == best
                for answer, best in zip(self._judge.answers(list(shown)), own, strict=True)
            ]
            figures[f"judge agrees at {t}"] = float(np.mean(same))
        return figures


class PhotoScores:
    """PSNR, MS-SSIM, the error of colour (CIELAB) and bits a pixel of the middle of each photo that
    is held."""

    def __init__(self, data: PhotoData, config: RecurrentConfig, device: torch.device) -> None:
        self._data, self._config, self._device = data, config, device

    @torch.no_grad()
    def __call__(
        self, network: RecurrentCodec, guesser: BitGuesser | None, at_most: AtMost
    ) -> dict[str, float]:
        del at_most  # they are few
        iterations, block = self._config.iterations, self._config.block
        scores = np.zeros((iterations, 4))
        for photo in self._data.held:
            height, width = (min(192, side) // block * block for side in photo.shape[:2])
            top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
            crop = photo[top : top + height, left : left + width]
            source = (
                torch.from_numpy(crop.copy())
                .permute(2, 0, 1)[None]
                .float()
                .div_(127.5)
                .sub_(1)
                .to(self._device)
            )
            images, codes = network(source, iterations)
            for t, (image, bits) in enumerate(zip(images, _bits(codes, guesser), strict=True)):
                error = float(((image.clamp(-1, 1) - source) / 2).square().mean())
                shown = (
                    ((image[0].clamp(-1, 1) + 1) * 127.5)
                    .round()
                    .byte()
                    .permute(1, 2, 0)
                    .cpu()
                    .numpy()
                )
                scores[t] += (
                    -10 * np.log10(max(error, 1e-10)),
                    ms_ssim(crop, shown),
                    100 * float(colour_error(image, source)),
                    bits / (height * width),
                )
        if not self._data.held:
            return {}
        scores /= len(self._data.held)
        names = ("psnr", "ms_ssim", "colour", "bpp")
        return {
            f"{name} at {t + 1}": float(scores[t, k])
            for k, name in enumerate(names)
            for t in range(iterations)
        }


Scores = PictureScores | PhotoScores


def _bits(codes: list[torch.Tensor], guesser: BitGuesser | None) -> list[float]:
    """Bits of an image up to each iteration: by the estimate where there is one, else as they are
    before coding."""
    places = codes[0].shape[2] * codes[0].shape[3]
    counts = np.cumsum([code.shape[1] for code in codes])
    if guesser is None:
        return [float(count * places) for count in counts]
    costs = np.cumsum(guesser(codes).cpu().numpy())
    return [float(costs[count - 1] * places) for count in counts]


def _best(answer: Any) -> int:
    assert isinstance(answer, Classes)
    return answer.best
