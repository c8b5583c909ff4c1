"""Classifiers of vizcomp as vision systems, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vizcomp.errors import ModelError
from vizcomp.graphs import classifiers
from vizcomp.vision.answers import Answer, Array, Classes, Kind, Pixels
from vizcomp.vision.system import checked, file_fingerprint, fitted, softmax

SIDE = 32  # of the pictures that our classifiers are trained on, unless their file says otherwise
MOST = 1024
BATCH = 1024  # images that are made ready together


class OwnClassifier:
    """`inception`, `watcher`, the published `inception-v3`, or a model.safetensors of
    `vizcomp train --kind classifier`.

    Args:
        spec: one of these.
        offline: never touch the network.

    Raises:
        ModelError: no such file, damaged, or no classifier of vizcomp.
        WeightsMissingError: the published one could not be had.
    """

    kind: Kind = "classes"

    def __init__(self, spec: str, *, offline: bool = False) -> None:
        file = classifiers.read(spec, offline=offline)
        self._network = classifiers.Classifier(file)
        side = file.words.get("side", SIDE)
        if not isinstance(side, int) or not 1 <= side <= MOST:
            raise ModelError(
                f"{spec}: its configuration is invalid: pictures of side {side!r}",
                "train or fetch it again",
            )
        self.native = side
        self.name, self.classes = spec, self._network.classes
        self.fingerprint = file_fingerprint(classifiers.file_of(spec, offline=True))

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(images), BATCH):
            views = np.stack(
                [fitted(image, self.native, self.native) for image in images[start : start + BATCH]]
            )
            logits = checked(self._network.logits(views), self.name)
            answers += [Classes(softmax(row), self.classes) for row in logits]
        return answers

    def importance(self, image: Pixels) -> Array:
        heat = self._network.importance(fitted(image, self.native, self.native))
        largest = float(heat.max())
        if not largest > 0:
            return np.ones((1, 1), np.float32)  # nothing stands out: nothing may be given up
        return np.asarray(heat / largest, np.float32)
