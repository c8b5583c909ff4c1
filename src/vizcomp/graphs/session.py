"""A graph of ours, run by ONNX Runtime: opened when it is first needed, and again in a forked
process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.weights.sessions import available_cores, open_session


class Session:
    """What ONNX Runtime needs to run one graph.

    Args:
        made: gives the graph's bytes; asked once for each process.
        threads: that compute together; 0: as many as there are cores.
    """

    def __init__(self, made: Callable[[], bytes], *, threads: int = 1) -> None:
        self._made, self._threads = made, threads
        self._opened: tuple[int, Any] = (0, None)

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[np.float32]]:
        """The values of some outputs."""
        process, session = self._opened
        if process != os.getpid():
            threads = self._threads or available_cores()
            # the threads of a session do not come along into a forked process, one worker among
            # others
            if session is not None:
                threads = 1
                # for ever: its end would wait for them
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
            session = open_session(self._made(), threads=threads, quiet=True)
            self._opened = (os.getpid(), session)
        values: list[npt.NDArray[np.float32]] = session.run(list(outputs), dict(inputs))
        return values
