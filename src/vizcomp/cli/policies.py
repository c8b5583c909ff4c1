"""What `djpeg --policy` takes from a policy, and which other options contradict it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vizcomp.cli.usage import source_of
from vizcomp.cli.voice import Voice

if TYPE_CHECKING:
    from vizcomp.djpeg.settings import DjpegSettings

STRENGTH = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
"""Where an option comes from; each goes before those on its left."""

# Options that would make files other than the certified ones. The rest (jobs, output, dates ...)
# changes no answer.
CONTRADICTING = (
    *(
        "quality",
        "strength",
        "guide",
        "table",
        "shape",
        "target_size",
        "min_saving",
        "metadata",
        "verify",
        "tolerance",
    ),
    *(
        "max_side",
        "short_side",
        "scale",
        "resample",
        "subsampling",
        "lossless",
        "format",
        "readers",
    ),
    *("depth_model", "size", "flip", "depth_maps", "masks"),
)


def policy_settings(context: typer.Context, path: str, voice: Voice) -> DjpegSettings:
    """The settings of a policy; says what its certificate is, and where this encoder is another
    one.

    Raises:
        SettingsError: an option was given that contradicts the policy.
        InputError: no policy, or one that was changed by hand.
    """
    from vizcomp.errors import SettingsError
    from vizcomp.fitting.policy import Policy

    asked = STRENGTH.index(source_of(context, "policy"))
    for name in CONTRADICTING:
        source = source_of(context, name)
        if source not in STRENGTH[1:]:
            continue
        option = "--" + name.replace("_", "-")
        if STRENGTH.index(source) >= asked:
            raise SettingsError(f"--policy and {option} contradict each other", "omit one of them")
        voice.say(
            f"{option} of the {'environment' if source == 'ENVIRONMENT' else 'file'} is not used:"
            " the policy decides"
        )
    policy = Policy.read(path)
    if policy.other_encoder:
        voice.warn(policy.other_encoder)
    else:
        voice.say(policy.certificate.sentence)
    return policy.settings
