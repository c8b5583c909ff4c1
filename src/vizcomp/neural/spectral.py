"""The networks of a codec of small pictures in their spectrum, run step by step on arrays by ONNX
Runtime.

`nets.spectral` describes and trains them, `graphs.spectral` makes graphs of their weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.graphs.codecs import CodecConfig
from vizcomp.graphs.recurrent import Weights
from vizcomp.graphs.session import Session
from vizcomp.graphs.spectral import (
    SpectralConfig,
    finish_rows,
    front_graph,
    head_arrays,
    picture_graph,
    step_graph,
)
from vizcomp.neural.compiled import CompiledNetwork, supports
from vizcomp.neural.network import AnyNetwork, Floats, Network, State, step_sessions

Arrays = dict[str, npt.NDArray[Any]]


class SpectralNetwork:
    """Encoder, binarizer and decoder of one codec. The decoder's state is a layer's two, what was
    seen, and the components.

    Args:
        config: of the networks.
        weights: float32, as `graphs.spectral.shapes`.
        threads: that compute together; 0: as many as there are cores.
    """

    def __init__(self, config: SpectralConfig, weights: Weights, *, threads: int = 0) -> None:
        self.config = config
        self._weights = weights

        self._sessions = step_sessions(
            lambda part, first: step_graph(config, weights, part, first=first), threads
        )
        self._front = Session(lambda: front_graph(config, weights), threads=threads)
        self._picture = Session(lambda: picture_graph(config, weights), threads=threads)
        self._heads: dict[tuple[str, int], Arrays] = {}

    def start(self, count: int, height: int, width: int) -> State:
        """The state before the first iteration, for pictures of the codec's own size."""
        del height, width
        nothing = np.zeros((count, self.config.components), np.float32)
        return State((), (nothing, nothing), np.zeros((count, 0), np.float32), 0)

    def prepared(self, source: Floats) -> Floats:
        """Pictures (N, 3, H, W) in -1..1 as `analyse` takes them: their components, (N, K)."""
        return self._front.run(["components"], {"source": source})[0]

    def analyse(
        self, source: Floats, state: State, given: Floats | None = None
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """One step of the encoder.

        Args:
            source: of `prepared`.
            given: nothing: such an encoder is told nothing.

        Returns:
            values in -1..1 whose signs are the bits, (N, bits, 1, 1), and the encoder's new state.
        """
        del given
        inputs = self._head("encoder", state.iteration) | {"source": source}
        if state.iteration:
            hidden, cell = state.encoder
            inputs |= {
                "hidden": hidden,
                "cell": cell,
                "seen": state.decoder[-2],
                "components": state.decoder[-1],
            }
        first = state.iteration == 0
        values, *after = self._sessions["encoder", first].run(
            ["values", "new_hidden", "new_cell"], inputs
        )
        return values[:, :, None, None], tuple(after)

    def synthesise(self, bits: npt.NDArray[np.bool_], state: State) -> State:
        """One step of the decoder: bool (N, bits, 1, 1) to the state with one iteration more."""
        signs = np.where(bits[:, :, 0, 0], np.float32(1), np.float32(-1))
        inputs = self._head("decoder", state.iteration) | {"bits": signs}
        if state.iteration:
            inputs |= dict(
                zip(("hidden", "cell", "seen", "components"), state.decoder, strict=True)
            )
        outputs = ["new_hidden", "new_cell", "new_seen", "new_components"]
        after = self._sessions["decoder", state.iteration == 0].run(outputs, inputs)
        return State(state.encoder, tuple(after), state.image, state.iteration + 1)

    def in_torch_order(self, state: State) -> State:
        """The decoder's state as the modules of `nets` have it: as it is."""
        return state

    def picture(self, state: State) -> Floats:
        """The reconstruction so far: (N, 3, H, W), about -1..1."""
        inputs: Arrays = {"components": state.decoder[-1]}
        if self.config.finish:
            inputs["fine"], inputs["coarse"] = finish_rows(
                self._weights, max(0, state.iteration - 1)
            )
        return self._picture.run(["image"], inputs)[0]

    def _head(self, part: str, iteration: int) -> Arrays:
        key = part, iteration
        if key not in self._heads:
            arrays = head_arrays(self.config, self._weights, part, iteration)
            if iteration == 0:
                arrays = {
                    name: value for name, value in arrays.items() if name not in ("shift", "back")
                }
            self._heads[key] = arrays
        return dict(self._heads[key])


def open_network(config: CodecConfig, weights: Weights, *, threads: int = 0) -> AnyNetwork:
    """The networks of a codec of either kind."""
    if isinstance(config, SpectralConfig):
        return SpectralNetwork(config, weights, threads=threads)
    if supports(config):
        return CompiledNetwork(config, weights, threads=threads)
    return Network(config, weights, threads=threads)
