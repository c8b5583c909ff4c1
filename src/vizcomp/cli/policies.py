"""What `djpeg --policy` takes from a policy, and which other options contradict it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vizcomp.cli.voice import Voice

if TYPE_CHECKING:
    from vizcomp.djpeg.settings import DjpegSettings

# Options that would make files other than the certified ones. The rest (jobs, output, dates ...) changes no answer.
CONTRADICTING = (
    *("quality", "strength", "guide", "table", "target_size", "min_saving", "metadata", "verify", "tolerance"),
    *("max_side", "scale", "subsampling", "lossless"),
    *("depth_model", "size", "flip", "depth_maps", "masks"),
)


def policy_settings(context: typer.Context, path: str, voice: Voice) -> DjpegSettings:
    """The settings of a policy; says what its certificate is, and where this encoder is another one.

    Raises:
        SettingsError: an option was given that contradicts the policy.
        InputError: no policy, or one that was changed by hand.
    """
    from vizcomp.errors import SettingsError
    from vizcomp.fitting.policy import Policy

    for name in CONTRADICTING:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise SettingsError(f"--policy and {option} contradict each other", "omit one of them")
    policy = Policy.read(path)
    if policy.other_encoder:
        voice.warn(policy.other_encoder)
    else:
        voice.say(policy.certificate.sentence)
    return policy.settings
