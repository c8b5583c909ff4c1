"""A classifier that takes 30 ms of a core; in a module of its own, since worker processes do not
import the program's main one."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import numpy.typing as npt
from PIL import Image

SECONDS = 0.03


def slow(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A classifier by the mean colours of a grid of nine, in 30 ms."""
    until = time.process_time() + SECONDS
    small = np.asarray(Image.fromarray(image).resize((3, 3), Image.Resampling.BOX), np.float32)
    logits = small.reshape(-1) / 8
    while time.process_time() < until:
        hashlib.sha256(bytes(4096)).digest()
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum(), np.float32)
