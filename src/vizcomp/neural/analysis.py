"""The search for the bits of an image at encode time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vizcomp.errors import SettingsError
from vizcomp.neural.tensors import Bits, Pixels, as_shown, put_state, to_tensor
from vizcomp.vzc import coding

if TYPE_CHECKING:
    import torch

    from vizcomp.nets.recurrent import CodecState

ROUND = 8  # candidates decoded together when an answer is restored,
MEND = 64  # at most this many candidates an image
MEND_TASK = 0.5  # weight of the divergence there: the answer first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """The objective of the search at encode time, to be minimised: error + task * divergence + rate * bits.

    Attributes:
        task: weight of the divergence of the classifier's answer, in nats.
        rate: weight of a bit.
        least: smallest probability that a bit is tried the other way.
    """

    task: float = 2.0
    rate: float = 0.0005
    least: float = 0.02


def candidate_count(search: int | None) -> int:
    """How many to try in each iteration of every image."""
    if search is not None and search < 0:
        raise SettingsError(f"a search of {search} candidates is not possible", "use 0 or more")
    return search or 0


class Analyser:
    """Images to bits: the network's own, or better ones near them.

    Args:
        network: a `RecurrentCodec`.
        context: the model that says what a bit costs.
        words: what the training of the codec wrote about it.
    """

    def __init__(self, network: Any, context: coding.ContextModel, words: dict[str, Any]) -> None:
        self._network = network
        self._context = context
        self._words = words
        self._native: int = network.config.native
        self.classifier: Any = None
        self.search = Search(**words.get("search", {}))

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
        import torch

        from vizcomp.neural.search import picked

        with torch.no_grad():
            source = to_tensor(images)
            told = logits = None
            if self._words.get("classifier"):
                logits = self._answers(source)
            if self._network.config.given and logits is not None:
                told = torch.log_softmax(logits, 1).clamp_min(-10)
            state = self._network.start((len(images), *source.shape[-2:]))
            codes: list[Bits] = []
            for _ in range(many):
                values, encoder = self._network.analyse(source, state, told)
                bits = values > 0
                if candidates:
                    bits = self._searched(values, source, state, logits, codes, candidates)
                after = self._network.synthesise(bits * 2.0 - 1.0, state)
                if mend and logits is not None:
                    lost = torch.nonzero(self._answers(as_shown(after.image)).argmax(1) != logits.argmax(1))[:, 0]
                    if len(lost):
                        few = picked(state, lost)
                        earlier = [plane[lost.numpy()] for plane in codes]
                        bits[lost] = self._restored(bits[lost], values[lost], source[lost], few, logits[lost], earlier, mend)
                        put_state(after, lost, self._network.synthesise(bits[lost] * 2.0 - 1.0, few))
                state = after._replace(encoder=encoder)
                codes.append(bits.numpy().astype(np.uint8))
        return codes

    def _restored(
        self,
        bits: torch.Tensor,
        values: torch.Tensor,
        source: torch.Tensor,
        state: CodecState,
        logits: torch.Tensor,
        before: list[Bits],
        candidates: int,
    ) -> torch.Tensor:
        """Bits near `bits` that decode to an image with the wanted answer, where that is found: bool as `values`.

        Rounds of a few candidates each, the best so far with some bits turned, the more likely the less sure the encoder was of
        them. An image is done once a round has a candidate with the answer; without one its own bits stay. The random
        numbers are the same for every image, whatever else is in the batch.
        """
        import torch

        from vizcomp.neural.search import picked, squared

        result, base = bits.clone(), bits.clone()
        score = torch.full((len(values),), torch.inf)
        todo = torch.arange(len(values))
        generator = torch.Generator().manual_seed(0)
        turn = ((1 - values.abs()) / 2).clamp_min(self.search.least)
        for _ in range(0, candidates, ROUND):
            draws = torch.rand(1, ROUND, *values.shape[1:], generator=generator)
            trial = base[todo][:, None] ^ (draws < turn[todo][:, None])
            which = todo.repeat_interleave(ROUND)
            flat = trial.flatten(0, 1)
            image = as_shown(self._network.synthesise(flat * 2.0 - 1.0, picked(state, which)).image)
            earlier = [plane[which.numpy()] for plane in before]
            scores, same = self._cost(image, flat, logits[which], earlier, MEND_TASK)
            scores = (scores + squared(image, source[which]).mean((1, 2))).view(-1, ROUND)
            same = same.view(-1, ROUND)
            least, which = torch.where(same, scores, torch.inf).min(1)
            hit = least < torch.inf
            result[todo[hit]] = trial[hit, which[hit]]
            nearest, which = scores.min(1)
            better = ~hit & (nearest < score[todo])
            base[todo[better]] = trial[better, which[better]]
            score[todo[better]] = nearest[better]
            todo = todo[~hit]
            if not len(todo):
                break
        return result

    def _searched(
        self,
        values: torch.Tensor,
        source: torch.Tensor,
        state: CodecState,
        logits: torch.Tensor | None,
        before: list[Bits],
        candidates: int,
    ) -> torch.Tensor:
        """Bits near the encoder's own that decode to something better, by rounds of `neural.search`: bool as `values`."""
        from vizcomp.neural import search as neural_search
        from vizcomp.neural.search import JOINT, SINGLES, improved, squared

        def cost(image: torch.Tensor, trial: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
            answers = None if logits is None else logits[which]
            earlier = [plane[which.numpy()] for plane in before]
            return self._cost(as_shown(image), trial, answers, earlier, self.search.task)[0]

        # in a photo each place decides for itself, by its error alone: what the whole costs does not say where it was worth it
        judged = cost if self._native else None
        structural = dict(self._words.get("settings") or {}).get("reconstruction") == "ms-ssim"
        error = neural_search.structural if structural else squared
        best = values > 0
        while candidates > 0:
            singles = min(SINGLES, candidates)
            joint = JOINT[: candidates - singles]
            best = improved(self._network, best, values, source, state, singles=singles, joint=joint, error=error, cost=judged)
            candidates -= singles + len(joint)
        return best

    def _cost(
        self, image: torch.Tensor, bits: torch.Tensor, logits: torch.Tensor | None, before: list[Bits], task: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What counts for N candidates beside their error, and whether the classifier's answer is the wanted one.

        Args:
            image: what they decode to, (N, 3, H, W), as it is shown.
            bits: bool (N, bits, rows, columns).
            logits: the classifier's logits on the sources, (N, classes).
            before: the bits of each iteration before, N of each.
            task: weight of the divergence.

        Returns:
            float32 and bool (N,).
        """
        import torch
        from torch.nn import functional as F

        total, same = torch.zeros(len(image)), torch.ones(len(image), dtype=torch.bool)
        if logits is not None and task:
            answer = F.softmax(self._answers(image), 1)
            same = answer.argmax(1) == logits.argmax(1)
            if not self._mirrors():
                # the mean over the image and its mirror image: less of what only this classifier sees in only this image
                answer = (answer + F.softmax(self._answers(image.flip(-1)), 1)) / 2
            target = F.log_softmax(logits, 1)
            total = total + task * (target.exp() * (target - answer.clamp_min(1e-6).log())).sum(1)
        if self.search.rate:
            cost = coding.cost_bits_batch(self._context, bits.numpy().astype(np.uint8), before)
            total = total + self.search.rate * torch.from_numpy(cost).float()
        return total, same

    def _answers(self, image: torch.Tensor) -> torch.Tensor:
        """The classifier's logits; in bfloat16 where the processor is quicker at it, with the best class of float32."""
        from vizcomp.nets import classifiers

        if self.classifier is None:
            self.classifier = classifiers.load_folded(self._words["classifier"])
        return classifiers.logits_of(self.classifier, image / 2 + 0.5, mixed=classifiers.multiplies_bfloat16())

    def _mirrors(self) -> bool:
        """Whether the classifier takes the mean over the mirror image by itself."""
        config = getattr(getattr(self.classifier, "network", None), "config", None)
        return bool(getattr(config, "mirror", False))
