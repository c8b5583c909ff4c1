"""Legacy Keras files, opened first in a process with limits: HDF5's library can loop, or take all
memory, on a hostile one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError
from vizcomp.files.foreign import read_object

Array = npt.NDArray[np.float32]
Content = tuple[dict[str, Any], dict[str, dict[str, Array]]]

HINT = "give nyu.h5 of DenseDepth, or a file that its training saved with model.save"
MOST_BYTES = 2 << 30  # of a file, and of its arrays; DenseDepth's has 173 MB
SECONDS, BYTES_A_SECOND = 15.0, 5 << 20  # nyu.h5 takes half a second
MEMORY = 2 << 30  # bytes beside the arrays; Python, NumPy and HDF5 take a tenth of it
_REFUSED = 3  # the process's exit code where it has said what is wrong


def read_keras(path: Path) -> Content:
    """The configuration, and for each layer its arrays by their names, in the file's own order.

    Raises:
        ModelError: not HDF5, cut off, without a configuration, or not to be opened within the
            limits.
    """
    try:
        with path.open("rb") as file:
            start, size = file.read(8), os.fstat(file.fileno()).st_size
    except OSError as exc:
        raise ModelError(f"{path}: {exc.strerror or exc}", HINT) from exc
    if start != b"\x89HDF\r\n\x1a\n":
        raise ModelError(
            f"{path} is not HDF5: expected a legacy Keras file, found bytes that begin with"
            f" {start!r}",
            HINT,
        )
    if size > MOST_BYTES:
        raise ModelError(f"{path} has {size:,} bytes, more than the {MOST_BYTES:,} allowed", HINT)
    _try_elsewhere(path, size)
    return _opened(path)


def _try_elsewhere(path: Path, size: int) -> None:
    """Opens the file as `_opened` does, in a process of its own.

    Raises:
        ModelError: what that one says, or that it ended otherwise.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    code = "from vizcomp.depth.hdf5 import main; main()"
    command = [sys.executable, "-P", "-c", code, os.path.abspath(path), str(MEMORY + 4 * size)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS + size / BYTES_A_SECOND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path} is damaged: HDF5 does not come to an end with it", HINT) from None
    except OSError as exc:
        raise ModelError(
            f"{path} cannot be opened in a process of its own: {exc.strerror or exc}", HINT
        ) from exc
    if done.returncode == _REFUSED:
        raise ModelError(f"{path} {done.stdout.decode(errors='replace').strip()[:300]}", HINT)
    if done.returncode:
        raise ModelError(
            f"{path} is damaged: HDF5 fails on it, or takes more memory than such a file needs",
            HINT,
        )


def main() -> None:
    """In the process with limits: opens the file that the command names, and says what is wrong
    with it."""
    path, memory = Path(sys.argv[1]), int(sys.argv[2])
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limits on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _opened(path)
    except ModelError as exc:
        print(exc.message.removeprefix(f"{path} "))
        sys.exit(_REFUSED)


def _opened(path: Path) -> Content:
    try:
        import h5py
    except ImportError as exc:
        raise ModelError(
            f"{path} cannot be read: DenseDepth needs h5py: {exc}", "pip install 'vizcomp[nyu]'"
        ) from exc
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            if text is None:
                raise ModelError(
                    f"{path} has no model_config: expected a whole model, found weights or other"
                    " data",
                    HINT,
                )
            config = read_object(text)
            group = file["model_weights"]
            arrays: dict[str, dict[str, Array]] = {}
            room = MOST_BYTES
            for name in _names(group, "layer_names"):
                arrays[name] = {}
                for each in _names(group[name], "weight_names"):
                    dataset = group[name][each]
                    room -= 4 * int(dataset.size)
                    if room < 0:
                        raise ModelError(
                            f"{path} holds more than {MOST_BYTES:,} bytes of weights", HINT
                        )
                    arrays[name][each] = np.asarray(dataset, np.float32)
    except (
        OSError,
        KeyError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        MemoryError,
    ) as exc:
        raise ModelError(
            f"{path} is cut off or damaged: {' '.join(str(exc).split())[:120]}", HINT
        ) from exc
    return config, arrays


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names; one that HDF5 cannot hold in an attribute Keras cuts into `attribute`0,
    `attribute`1 and so on."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    return [
        n.decode() if isinstance(n, bytes) else str(n) for part in parts for n in group.attrs[part]
    ]
