"""The search for the bits of an image at encode time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import MissingExtraError, SettingsError
from vizcomp.graphs.classifiers import Classifier
from vizcomp.graphs.recurrent import Weights
from vizcomp.neural.arrays import Bits, Floats, Pixels, to_pixels, to_planes
from vizcomp.neural.network import AnyNetwork, State, picked, put_state
from vizcomp.vzc import coding

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
TOLD = ("answer", "wrong", "nothing")  # what an encoder is told of its classifier's answer
ROUND = 8  # candidates decoded together when an answer is restored,
MEND = 64  # at most this many candidates an image
MEND_TASK = 0.5  # weight of the divergence there: the answer first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """The objective of the search at encode time, to be minimised: error + task * divergence + rate
    * bits.

    Attributes:
        task: weight of the divergence of the classifier's answer, in nats.
        rate: weight of a bit.
        least: smallest probability that a bit is tried the other way.
    """

    task: float = 2.0
    rate: float = 0.0005
    least: float = 0.02


def candidate_count(search: int | None) -> int:
    """How many to try in each iteration of every image.

    Raises:
        SettingsError: fewer than none.
        MissingExtraError: the search takes gradients, and torch is not installed.
    """
    if search is not None and search < 0:
        raise SettingsError(f"a search of {search} candidates is not possible", "use 0 or more")
    if search:
        try:
            import vizcomp.neural.search  # noqa: F401
        except ImportError as exc:
            raise MissingExtraError("torch, which `search` needs,", "train") from exc
    return search or 0


class Analyser:
    """Images to bits: the network's own, or better ones near them.

    Args:
        network: the codec's.
        weights: of it, for the search, which takes gradients.
        context: the model that says what a bit costs.
        metadata: what the training of the codec wrote about it.
        threads: that compute together; 0: as many as there are cores.
    """

    def __init__(
        self,
        network: AnyNetwork,
        weights: Weights,
        context: coding.ContextModel,
        metadata: dict[str, Any],
        threads: int,
    ) -> None:
        self._network, self._weights = network, weights
        self._context = context
        self._words = metadata
        self._threads = threads
        self._native: int = network.config.native
        self.classifier: Classifier | None = None
        self.search = Search(**metadata.get("search", {}))
        self.told = TOLD[0]

    def bits(self, images: Pixels, many: int, candidates: int, mend: int = 0) -> list[Bits]:
        """Bits of images whose sides are multiples of the block.

        Args:
            images: uint8 (N, H, W, 3).
            many: iterations.
            candidates: tried in each iteration of an image; 0: the encoder's own bits.
            mend: candidates at most for an image whose answer is lost.

        Returns:
            uint8 (N, bits[t], rows, columns) for each iteration t.
        """
        source = to_planes(images)
        told = logits = None
        if self._words.get("classifier"):
            logits = self._answers(images)
            if self.told == "wrong":
                logits = np.roll(logits, 1, 1)  # every class takes the place of the one before it
            elif self.told == "nothing":
                logits = None
        if self._network.config.given and logits is not None:
            told = np.maximum(log_softmax(logits), np.float32(-10))
        prepared = self._network.prepared(source)
        state = self._network.start(len(images), *source.shape[2:])
        codes: list[Bits] = []
        for t in range(many):
            values, encoder = self._network.analyse(prepared, state, told)
            bits = values > 0
            if candidates:
                bits = self._searched(values, source, state, logits, codes, candidates)
            mended = mend > 0 and logits is not None
            if t + 1 < many or mended:  # after the last iteration nobody looks at the image
                after = self._network.synthesise(bits, state)
                if mended and logits is not None:
                    bits, after = self._mended(
                        bits, after, values, source, state, logits, codes, mend
                    )
                state = after._replace(encoder=encoder)
            codes.append(bits.astype(np.uint8))
        return codes

    def _mended(
        self,
        bits: Flags,
        after: State,
        values: Floats,
        source: Floats,
        state: State,
        logits: Floats,
        before: list[Bits],
        candidates: int,
    ) -> tuple[Flags, State]:
        """The bits, and the state after them, with another answer than the wanted one restored
        where that is found."""
        lost = np.flatnonzero(
            self._answers(to_pixels(self._network.picture(after))).argmax(1) != logits.argmax(1)
        )
        if not len(lost):
            return bits, after
        few = picked(state, lost)
        bits = bits.copy()
        earlier = [plane[lost] for plane in before]
        bits[lost] = self._restored(
            bits[lost], values[lost], source[lost], few, logits[lost], earlier, candidates
        )
        return bits, put_state(after, lost, self._network.synthesise(bits[lost], few))

    def _restored(
        self,
        bits: Flags,
        values: Floats,
        source: Floats,
        state: State,
        logits: Floats,
        before: list[Bits],
        candidates: int,
    ) -> Flags:
        """Bits near `bits` that decode to an image with the wanted answer, where that is found:
        bool as `values`.

        Rounds of a few candidates each, the best so far with some bits turned, the more likely the
        less sure the encoder was of them. An image is done once a round has a candidate with the
        answer; without one its own bits stay. The random numbers are the same for every image,
        whatever else is in the batch.
        """
        result, base = bits.copy(), bits.copy()
        score = np.full(len(values), np.inf, np.float32)
        todo = np.arange(len(values))
        generator = np.random.default_rng(0)
        turn = np.maximum((1 - np.abs(values)) / 2, np.float32(self.search.least))
        for _ in range(0, candidates, ROUND):
            draws = generator.random((1, ROUND, *values.shape[1:]), np.float32)
            trial = base[todo][:, None] ^ (draws < turn[todo][:, None])
            which = np.repeat(todo, ROUND)
            flat = trial.reshape(-1, *trial.shape[2:])
            shown = to_pixels(
                self._network.picture(self._network.synthesise(flat, picked(state, which)))
            )
            earlier = [plane[which] for plane in before]
            scores, same = self._cost(shown, flat, logits[which], earlier, MEND_TASK)
            scores = (scores + squared(to_planes(shown), source[which])).reshape(-1, ROUND)
            same = same.reshape(-1, ROUND)
            at = np.arange(len(todo))
            answering = np.where(same, scores, np.inf)
            best = answering.argmin(1)
            hit = answering[at, best] < np.inf
            result[todo[hit]] = trial[at[hit], best[hit]]
            nearest = scores.argmin(1)
            better = ~hit & (scores[at, nearest] < score[todo])
            base[todo[better]] = trial[at[better], nearest[better]]
            score[todo[better]] = scores[at[better], nearest[better]]
            todo = todo[~hit]
            if not len(todo):
                break
        return result

    def _searched(
        self,
        values: Floats,
        source: Floats,
        state: State,
        logits: Floats | None,
        before: list[Bits],
        candidates: int,
    ) -> Flags:
        """Bits near the encoder's own that decode to something better, by rounds of
        `neural.search`: bool as `values`."""
        from vizcomp.neural.search import searched

        def cost(shown: Pixels, trial: Flags, which: Places) -> Floats:
            answers = None if logits is None else logits[which]
            return self._cost(
                shown, trial, answers, [plane[which] for plane in before], self.search.task
            )[0]

        # in a photo each place decides for itself, by its error alone: what the whole costs does
        # not say where it was worth it
        judged: Callable[[Pixels, Flags, Places], Floats] | None = cost if self._native else None
        return searched(
            self._network.config,
            self._weights,
            values,
            source,
            self._network.in_torch_order(state),
            candidates=candidates,
            structure=dict(self._words.get("settings") or {}).get("reconstruction") == "ms-ssim",
            cost=judged,
            threads=self._threads,
        )

    def _cost(
        self, shown: Pixels, bits: Flags, logits: Floats | None, before: list[Bits], task: float
    ) -> tuple[Floats, Flags]:
        """What counts for N candidates beside their error, and whether the classifier's answer is
        the wanted one.

        Args:
            shown: what they decode to, uint8 (N, H, W, 3).
            bits: bool (N, bits, rows, columns).
            logits: the classifier's logits on the sources, (N, classes).
            before: the bits of each iteration before, N of each.
            task: weight of the divergence.

        Returns:
            float32 and bool (N,).
        """
        total, same = np.zeros(len(shown), np.float32), np.ones(len(shown), np.bool_)
        if logits is not None and task:
            answer = np.exp(log_softmax(self._answers(shown)))
            same = answer.argmax(1) == logits.argmax(1)
            if self.classifier is not None and not self.classifier.mirrors:
                # the mean over the image and its mirror image: less of what only this classifier
                # sees in only this image
                answer = (answer + np.exp(log_softmax(self._answers(shown[:, :, ::-1])))) / 2
            target = log_softmax(logits)
            total = total + task * (
                np.exp(target) * (target - np.log(np.maximum(answer, 1e-6)))
            ).sum(1)
        if self.search.rate:
            cost = coding.cost_bits_batch(self._context, bits.astype(np.uint8), before)
            total = total + self.search.rate * cost.astype(np.float32)
        return total.astype(np.float32), same

    def _answers(self, pictures: Pixels) -> Floats:
        """The classifier's logits: uint8 (N, H, W, 3) to float32 (N, classes)."""
        if self.classifier is None:
            self.classifier = Classifier.load(self._words["classifier"], threads=self._threads)
        return self.classifier.logits(pictures)


def log_softmax(logits: Floats) -> Floats:
    """The logarithms of a classifier's probabilities, (N, classes)."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), np.float32)


def squared(image: Floats, source: Floats) -> Floats:
    """Mean squared error of images in -1..1, (N, 3, H, W) to (N,): ten times that of images in
    0..1, as in training."""
    return np.asarray(2.5 * np.square(image - source).mean((1, 2, 3)), np.float32)
