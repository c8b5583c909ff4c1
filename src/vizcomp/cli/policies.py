"""What `djpeg --policy` takes from a policy, and which other options contradict it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from vizcomp.cli.usage import source_of
from vizcomp.cli.voice import Voice

if TYPE_CHECKING:
    from vizcomp.batch.streams import Plan
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


def policy_settings(
    context: typer.Context, path: str, voice: Voice, asked_for: DjpegSettings
) -> tuple[DjpegSettings, dict[str, DjpegSettings] | None]:
    """The settings of a policy, or of a folder of them by the folders of photos that they are for,
    with the scans of what was asked for; where no policy is named, that. Says what is certified,
    where this encoder is another one, and where one answer for all photos proves little.

    Raises:
        SettingsError: an option was given that contradicts the policy.
        InputError: no policy, or one that was changed by hand.
    """
    from vizcomp.errors import SettingsError
    from vizcomp.fitting.policy import Policy, policies_in

    if not path:
        return asked_for, None
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
    several = policies_in(path)
    for folder, policy in (several or {"": Policy.read(path)}).items():
        about = f"{folder}: " if folder else ""
        if policy.other_encoder:
            voice.warn(about + policy.other_encoder)
        else:
            voice.say(about + policy.certificate.sentence)
        for line in policy.one_answers:
            voice.warn(f"{about}when it was certified, {line}")
    settings = [
        dataclasses.replace(policy.settings, scans=asked_for.scans)
        for policy in (several or {"": policy}).values()
    ]
    by_folder = dict(zip(several, settings, strict=True)) if several else None
    return settings[0], by_folder


def check_by_folder(
    by_folder: dict[str, DjpegSettings] | None, plan: Plan, *, labels: bool
) -> None:
    """Refuse what has no folder, where there is a policy for each.

    Raises:
        SettingsError: a photo from standard input, one result, or labels, which have one setting.
    """
    from vizcomp.errors import SettingsError

    if by_folder is None:
        return
    hint = "name one policy.toml"
    if plan.piped is not None or plan.target is not None:
        raise SettingsError("a folder of policies is for folders of photos", hint)
    if labels:
        raise SettingsError("`labels` are of photos under one policy", hint)
