"""The recurrent codec's networks, run step by step on arrays by ONNX Runtime.

`nets.recurrent` describes and trains them, `graphs.recurrent` makes graphs of their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vizcomp.graphs.codecs import CodecConfig
from vizcomp.graphs.recurrent import RecurrentConfig, Weights, head_of, state_names, step_graph
from vizcomp.graphs.session import Session

Floats = npt.NDArray[np.float32]


class State(NamedTuple):
    """What encoder and decoder carry from one iteration to the next.

    Attributes:
        encoder, decoder: hidden state and cell of each layer in turn, (N, c, h, w) each, or as the
            network keeps them; empty at the start, and for a side that is not run.
        image: the reconstruction so far, (N, 3, H, W); of a codec that makes it of its state, (N,
            0).
        iteration: iterations done.
    """

    encoder: tuple[Floats, ...]
    decoder: tuple[Floats, ...]
    image: Floats
    iteration: int


def step_sessions(
    graph: Callable[[str, bool], bytes], threads: int
) -> dict[tuple[str, bool], Session]:
    """A session for each side of a codec and for its first and its further steps; `graph` makes a
    graph of a side, and of whether it is the first step."""

    def session(part: str, first: bool) -> Session:
        return Session(lambda: graph(part, first), threads=threads)

    return {
        (part, first): session(part, first)
        for part in ("encoder", "decoder")
        for first in (True, False)
    }


class Network:
    """Encoder, binarizer and decoder of one codec.

    Args:
        config: of the networks.
        weights: float32, as `graphs.recurrent.shapes`.
        threads: that compute together; 0: as many as there are cores.
    """

    def __init__(self, config: RecurrentConfig, weights: Weights, *, threads: int = 0) -> None:
        self.config = config
        self._weights = weights

        self._sessions = step_sessions(
            lambda part, first: step_graph(config, weights, part, first=first), threads
        )

    def start(self, count: int, height: int, width: int) -> State:
        """The state before the first iteration, for images whose sides are multiples of the
        block."""
        return State((), (), np.zeros((count, 3, height, width), np.float32), 0)

    def prepared(self, source: Floats) -> Floats:
        """Pictures (N, 3, H, W) in -1..1 as `analyse` takes them, in every iteration."""
        return source

    def in_torch_order(self, state: State) -> State:
        """The decoder's state as the modules of `nets` have it: as it is."""
        return state

    def picture(self, state: State) -> Floats:
        """The reconstruction so far: (N, 3, H, W), about -1..1."""
        return state.image

    def _run(
        self, part: str, state: State, made: str, inputs: dict[str, Floats]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """One step: what it makes, and its new states."""
        weight, bias = head_of(self.config, part, state.iteration)
        inputs |= {"head.weight": self._weights[weight], "head.bias": self._weights[bias]}
        first = state.iteration == 0
        names = state_names(len(self.config.encoder if part == "encoder" else self.config.decoder))
        if not first:
            inputs |= dict(
                zip(names, state.encoder if part == "encoder" else state.decoder, strict=True)
            )
            if part == "encoder" or self.config.reconstruction == "additive":
                inputs["image"] = state.image
                if self.config.residual_scaling:
                    inputs["iteration"] = np.asarray(state.iteration, np.float32)
        outputs = [made, *(f"new_{name}" for name in names)]
        output, *after = self._sessions[part, first].run(outputs, inputs)
        return output, tuple(after)

    def analyse(
        self, source: Floats, state: State, given: Floats | None = None
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """One step of the encoder.

        Args:
            source: (N, 3, H, W) in -1..1.
            given: (N, config.given) what the encoder is told; None: nothing.

        Returns:
            values in -1..1 whose signs are the bits, (N, bits, H/block, W/block), and the encoder's
            new state.
        """
        inputs = {"source": source}
        if self.config.given:
            inputs["given"] = (
                np.zeros((len(source), self.config.given), np.float32) if given is None else given
            )
        return self._run("encoder", state, "values", inputs)

    def synthesise(self, bits: npt.NDArray[np.bool_], state: State) -> State:
        """One step of the decoder.

        Args:
            bits: bool (N, bits, H/block, W/block).

        Returns:
            the state with the new reconstruction and one iteration more.
        """
        signs = np.where(bits, np.float32(1), np.float32(-1))
        image, after = self._run("decoder", state, "new_image", {"bits": signs})
        return State(state.encoder, after, image, state.iteration + 1)


class AnyNetwork(Protocol):
    """What `Network`, `compiled.CompiledNetwork` and `spectral.SpectralNetwork` do alike."""

    @property
    def config(self) -> CodecConfig: ...

    def start(self, count: int, height: int, width: int) -> State: ...

    def prepared(self, source: Floats) -> Floats: ...

    def analyse(
        self, source: Floats, state: State, given: Floats | None = None
    ) -> tuple[Floats, tuple[Floats, ...]]: ...

    def synthesise(self, bits: npt.NDArray[np.bool_], state: State) -> State: ...

    def picture(self, state: State) -> Floats: ...

    def in_torch_order(self, state: State) -> State: ...


def decode_each(
    network: AnyNetwork, codes: Iterable[npt.NDArray[np.uint8]], first: int = 1
) -> Iterator[Floats]:
    """The image after the bits of iteration `first`, and after each later one: (N, 3, H, W), about
    -1..1.

    Args:
        codes: uint8 (N, bits, rows, columns) of each iteration.
    """
    state: State | None = None
    for t, bits in enumerate(codes, 1):
        if state is None:
            n, _, rows, columns = bits.shape
            state = network.start(n, rows * network.config.block, columns * network.config.block)
        state = network.synthesise(bits != 0, state)
        if t >= first:
            yield network.picture(state)


def picked(state: State, which: npt.NDArray[np.intp]) -> State:
    """The decoder's state and the reconstruction of some images, which may be there several
    times."""
    return state._replace(
        encoder=(), decoder=tuple(one[which] for one in state.decoder), image=state.image[which]
    )


def put_state(state: State, which: npt.NDArray[np.intp], part: State) -> State:
    """The decoder's state of all images, with that of some replaced: the inverse of `picked`."""

    def joined(whole: Floats, some: Floats) -> Floats:
        whole = whole.copy()
        whole[which] = some
        return whole

    decoder = tuple(
        joined(whole, some) for whole, some in zip(state.decoder, part.decoder, strict=True)
    )
    return state._replace(decoder=decoder, image=joined(state.image, part.image))
