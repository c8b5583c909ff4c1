"""`encode --verify`. Vision systems and all that they need are loaded with this file alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vizcomp.batch.groups import Judged, Pixels
from vizcomp.batch.judges import beside, system_by_name
from vizcomp.batch.settings import EncodeSettings
from vizcomp.batch.verdicts import Panel, jointly
from vizcomp.neural.codec import NeuralCodec
from vizcomp.photos.frame import rgb
from vizcomp.vision import verify as vision_verify
from vizcomp.vision.answers import Comparison
from vizcomp.vzc import image as vzc


def judges_of(settings: EncodeSettings) -> list[str]:
    """Names and fingerprints of the systems that judge, and of the files beside them."""
    return [
        " ".join([name, system_by_name(name, settings.offline).fingerprint, *beside(name)])
        for name in settings.verify
    ]


def verified(codec: NeuralCodec, source: Pixels, data: bytes, settings: EncodeSettings) -> Judged:
    """The fewest iterations of a file on which the systems answer as on the source, as they see it;
    each verdict is on the decoded file."""
    panel = Panel(settings.verify, np.ascontiguousarray(rgb(source)), settings)
    file = vzc.unpack(data)
    header, count = file.header, len(file.chunks)
    if len(panel.blind) == len(settings.verify):
        return Judged(data=data, state="nothing", iterations=count, said=panel.said)
    verdicts: dict[bytes, Mapping[str, Comparison]] = {}

    def shortened(count: int) -> bytes:
        chunks = list(file.chunks)[:count]
        return vzc.pack(
            chunks, model=header.model, width=header.width, height=header.height, grey=header.grey
        )

    def judge(written: bytes) -> Comparison:
        verdicts[written] = panel.compare(np.ascontiguousarray(rgb(codec.decode(written).image)))
        return jointly(verdicts[written])

    best = vision_verify.smallest(range(1, count + 1), shortened, judge)
    by_system = verdicts[best.data]
    return Judged(
        data=best.data,
        state="verified" if best.verified else "not_reached",
        iterations=best.rung,
        scores={name: verdict.score for name, verdict in by_system.items()},
        trials=best.trials,
        against=tuple(name for name, verdict in by_system.items() if not verdict.same),
        said=panel.said,
    )
