"""What errors in a picture count: a matrix by which a training weighs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vizcomp.errors import TrainingError, first_line

_MEASURE = "`recipes/cifar_metric.py` measures one"


def matrix_power(matrix: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """Of a symmetric positive semidefinite matrix; directions of next to nothing count as a
    millionth of the largest."""
    values, axes = np.linalg.eigh(matrix)
    found: npt.NDArray[np.float64]
    found = (axes * np.maximum(values, values.max() * 1e-6) ** exponent) @ axes.T
    return found


def metric_of(path: Path, count: int, power: float) -> torch.Tensor:
    """The matrix whose product with a difference has the length that counts, (count, count).

    Args:
        path: of a .npy file, symmetric and positive semidefinite.
        count: of rows.
        power: to which matrix power it is taken: 0 for the identity.

    Raises:
        TrainingError: the file cannot be read, or is no such matrix.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise TrainingError(f"{path} is no metric: {first_line(exc)}", _MEASURE) from exc
    if (
        not isinstance(found, np.ndarray)
        or found.shape != (count, count)
        or found.dtype.kind != "f"
    ):
        raise TrainingError(f"{path} is no matrix of {count} x {count} floats", _MEASURE)
    matrix = found.astype(np.float64)
    largest = np.abs(matrix).max() if np.isfinite(matrix).all() else 0.0
    if not largest or np.abs(matrix - matrix.T).max() > 1e-4 * largest:
        raise TrainingError(f"{path} is not symmetric, or not finite, or zero", _MEASURE)
    return torch.from_numpy(matrix_power(matrix, power / 2)).float()
