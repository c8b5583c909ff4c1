"""A policy: settings of `djpeg` with the certificate they were given, as a TOML file that people
can read."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from vizcomp._version import __version__
from vizcomp.djpeg.compress import Prepared, compress
from vizcomp.djpeg.encoder import MACHINE_SCALE, STEP_SCALES
from vizcomp.djpeg.settings import SHAPE, DjpegSettings
from vizcomp.errors import InputError, SettingsError, first_line
from vizcomp.files.foreign import read_toml
from vizcomp.files.place import printable
from vizcomp.files.read import read_file
from vizcomp.files.store import AnyPath, StorePath, parse_place
from vizcomp.files.write import write_atomic
from vizcomp.photos.photo import in_memory
from vizcomp.vision import one_answer

FILE_NAME = "policy.toml"  # of a policy in a folder of them
MAX_BYTES = 1 << 20  # of a policy file; one has a few hundred
OPTIONS = (
    "quality",
    "strength",
    "guide",
    "table",
    "format",
)  # djpeg's options that a policy settles
# the same, where they are not as they are by default
FURTHER = ("max_side", "short_side", "scale", "resample", "subsampling", "shape")
HEAD = (
    "# Made by vizcomp fit. A change by hand voids the certificate: djpeg and check refuse the file"
    " then.\n"
)


@functools.cache
def encoder_fingerprint(format: str = "jpeg") -> str:
    """12 hexadecimal digits that change where the encoder of a format writes other bytes.

    A hash of what it makes of a picture that is drawn by integers, with each table (`auto` as it is
    without lettering) and with guides, and of the numbers behind tables and prices.
    Networks that guide are covered by the version of the package.

    Raises:
        MissingExtraError, SettingsError: the library that writes the format is not there.
    """
    rows, columns = np.mgrid[:64, :96]
    planes = [(rows * 3 + columns) % 256, (rows ^ columns) * 2 % 256, (rows * columns) // 24 % 256]
    pixels = np.stack(planes, -1).astype(np.uint8)
    photo = in_memory(pixels, format="PNG", source_bytes=1)
    digest = hashlib.sha256(repr((STEP_SCALES, MACHINE_SCALE, SHAPE)).encode())
    for quality, guide, table in (
        (20.0, "detail", "machine"),
        (60.0, "uniform", "machine"),
        (60.0, "uniform", "photo"),
        (97.0, "centre", "photo"),
    ):
        settings = DjpegSettings(quality=quality, guide=guide, table=table, format=format)  # type: ignore[arg-type]
        digest.update(compress(photo, settings).data)
    if format == "jpeg":
        automatic = DjpegSettings(quality=60.0, guide="uniform")
        digest.update(
            Prepared(photo, automatic, shape=dataclasses.replace(SHAPE, flat=0.0)).at(60.0)
        )
    return digest.hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was shown, on photos that no choice was made on.

    Attributes:
        risk: the mean loss, 0..1, that is not exceeded.
        confidence: 0..1, of that statement.
        photos: units of the certify part.
        changed: of these, how many have an answer that is not the same, for the worst system.
        bound: upper bound of the mean loss from these photos and this setting alone, at most
            `risk`.
        date: ISO 8601.
        loss: what is lost, a key of `CLAIMS`, or several joined by "and".
        mean_loss: of the certify part, for the worst system.
        unit: "file" or "folder".
        sample: hash that names the photos of the certify part.
        bytes: mean bytes of a result.
        source_bytes: mean bytes of a source.
        decoder: who decoded what the systems saw.
        by: "folder" where the statement holds in each folder; "" where it is about all photos
            together.
        labels: hash that names the labels which answers were held against; "" where it is the
            answers on the sources.
        test: by which it was shown; "" in files of older versions.
    """

    risk: float
    confidence: float
    photos: int
    changed: int
    bound: float
    date: str
    loss: str = "changed answers"
    mean_loss: float = 0.0
    unit: str = "file"
    sample: str = ""
    bytes: int = 0
    source_bytes: int = 0
    decoder: str = "pillow"
    by: str = ""
    labels: str = ""
    test: str = ""

    def __post_init__(self) -> None:
        shares = (self.risk, self.confidence, self.bound, self.mean_loss)
        if not all(0 <= share <= 1 for share in shares) or not 0 < self.risk < 1 or self.photos < 1:
            raise SettingsError(
                "a certificate with figures out of range", "make it again with vizcomp fit"
            )

    @property
    def sentence(self) -> str:
        """The certificate for people: what a team can sign."""
        lost = [CLAIMS.get(name, CLAIMS[CHANGED]) for name in self.loss.split(" and ")]
        claim = " and ".join(
            text.format(share=percent(self.risk), number=f"{self.risk:.4g}") for text in lost
        )
        shown = f"{self.changed:,} of {self.photos:,} {'worse' if self.labels else 'changed'}"
        if self.loss != CHANGED and self.loss != WRONG:
            shown += f", mean loss {self.mean_loss:.4f}"
        unit = {"file": "photos", "folder": "folders"}.get(self.unit, self.unit)
        where = ", in each folder by itself" if self.by else ""
        sure = f"with {percent(self.confidence)} confidence"
        return (
            f"{claim[:1].upper()}{claim[1:]}{where}, {sure} ({shown}; {unit} that no choice was"
            " made on)."
        )


CHANGED, WRONG = "changed answers", "lost accuracy"
CLAIMS = {
    CHANGED: "at most {share} of the answers change",
    WRONG: "accuracy on the labels falls by at most {share}",
    "1 - F1": "the mean loss of F1 is at most {number}",
    "lost F1": "the mean F1 on the labels falls by at most {number}",
    "lost words": "the mean share of the labelled words that are read falls by at most {share}",
    "1 - IoU": "the mean of 1 - IoU is at most {number}",
    "1 - similarity": "the mean of 1 - similarity of points is at most {number}",
    "character errors": "the mean character error rate is at most {number}",
    "1 - cosine": "the mean of 1 - cosine is at most {number}",
}
"""What may be lost, and how a certificate says so."""

_LOSSES = {
    "classes": (CHANGED, WRONG),
    "boxes": ("1 - F1", "lost F1"),
    "text": ("character errors", "lost words"),
    "masks": ("1 - IoU", ""),
    "keypoints": ("1 - similarity", ""),
    "embedding": ("1 - cosine", ""),
}


def loss_of(kind: str, *, labels: bool) -> str:
    """What answers of a kind lose: a key of `CLAIMS`.

    Raises:
        SettingsError: labels of such answers are not read.
    """
    name = _LOSSES[kind][labels]
    if not name:
        raise SettingsError(
            f"`labels` are for classes, boxes and text, not for {kind}",
            "omit them: agreement is certified then",
        )
    return name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stratum:
    """A folder of the sample for which a policy holds by itself.

    Attributes:
        name: of the folder.
        photos, changed, mean_loss, bound: as of `Certificate`, of its units alone.
    """

    name: str
    photos: int
    changed: int
    mean_loss: float
    bound: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertifiedSystem:
    """A vision system for which a policy holds.

    Attributes:
        name: by which it was asked for.
        fingerprint: of its weights.
        reading: how the model's input and output were read, as the system says; "" where it does
            not.
        kind: of its answers, as "classes" or "boxes".
        changed: units of the certify part with another answer.
        mean_loss: of the certify part.
        right_on_sources, right_on_results: with labels, how right its answers are in the mean,
            0..1; -1 without.
        one_answer: what it answers on all photos of the certify part alike; "" where answers
            differ. That it goes on doing so proves little.
    """

    name: str
    fingerprint: str
    reading: str = ""
    kind: str = "classes"
    changed: int = 0
    mean_loss: float = 0.0
    right_on_sources: float = -1.0
    right_on_results: float = -1.0
    one_answer: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """Settings with a certificate; `Policy.read("policy.toml")`.

    Attributes:
        settings: of djpeg; those beyond `OPTIONS` and `FURTHER` have their defaults.
        certificate: what was shown of them.
        systems: for which it was shown.
        strata: for each of which it was shown; () where nobody asked for any.
        version: of vizcomp, when it was made.
        encoder: fingerprint of the encoder, when it was made; see `encoder_fingerprint`. "": this
            one's.
    """

    settings: DjpegSettings
    certificate: Certificate
    systems: tuple[CertifiedSystem, ...]
    strata: tuple[Stratum, ...] = ()
    version: str = __version__
    encoder: str = ""

    def __post_init__(self) -> None:
        if not self.encoder:
            object.__setattr__(self, "encoder", encoder_fingerprint(self.settings.format))

    @classmethod
    def read(cls, path: str | AnyPath) -> Policy:
        """A policy from its file.

        Raises:
            InputError: missing, no policy, or changed by hand since `vizcomp fit` wrote it.
        """
        place = _place(path)
        name = printable(place)
        try:
            values = read_toml(
                read_file(place, check=lambda head, name: None, max_bytes=MAX_BYTES).decode("utf-8")
            )
        except UnicodeDecodeError as exc:
            raise InputError(f"{name} is no policy: it is no text", AGAIN) from exc
        except ValueError as exc:
            raise InputError(f"{name} is no policy: {first_line(exc)}", AGAIN) from exc
        try:
            checksum = values["made_with"].pop("checksum")
            same = checksum == _checksum(values)
            policy = cls._from(values)
        except (KeyError, TypeError, AttributeError, ValueError, SettingsError) as exc:
            raise InputError(f"{name} is no policy that vizcomp wrote", AGAIN) from exc
        if not same:
            hint = (
                "restore it, make it again with vizcomp fit, or give its settings as options of"
                " djpeg"
            )
            raise InputError(f"{name} was changed by hand: its certificate does not hold", hint)
        return policy

    @classmethod
    def _from(cls, values: Mapping[str, Any]) -> Policy:
        made = values["made_with"]
        return cls(
            settings=dataclasses.replace(
                _settings_from(values["policy"]),
                without_lettering=_settings_from(values["policy_without_lettering"])
                if "policy_without_lettering" in values
                else None,
            ),
            certificate=Certificate(**values["certificate"]),
            systems=tuple(CertifiedSystem(**one) for one in values["system"]),
            strata=tuple(Stratum(**one) for one in values.get("stratum", [])),
            version=str(made["version"]),
            encoder=str(made["encoder"]),
        )

    def write(self, path: str | AnyPath) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomic(_place(path), self.to_toml().encode("utf-8"))

    def to_toml(self) -> str:
        """The text of the file, with a checksum of all that it says."""
        values = self.to_dict()
        values["made_with"]["checksum"] = _checksum(values)
        about = NOT_SAID_OF_LABELS if self.certificate.labels else NOT_SAID
        lines = (self.certificate.sentence, about, *(f"{line}." for line in self.one_answers))
        said = "".join(f"# {printable(line)}\n" for line in lines)
        return HEAD + said + _toml(values)

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON types, by the names of the file."""
        other = self.settings.without_lettering
        return {
            "policy": _settings_to(self.settings),
            **({} if other is None else {"policy_without_lettering": _settings_to(other)}),
            "certificate": _given(self.certificate),
            "system": [_given(system) for system in self.systems],
            **(
                {"stratum": [dataclasses.asdict(one) for one in self.strata]} if self.strata else {}
            ),
            "made_with": {"version": self.version, "encoder": self.encoder},
        }

    @property
    def checksum(self) -> str:
        """16 hexadecimal digits that name the policy."""
        return _checksum(self.to_dict())

    @property
    def one_answers(self) -> list[str]:
        """What to say of each system that answered all photos of the certify part alike."""
        photos = self.certificate.photos if self.certificate.unit == "file" else 0
        return [
            one_answer.about(one.name, one.one_answer, photos)
            for one in self.systems
            if one.one_answer
        ]

    @property
    def other_encoder(self) -> str:
        """What to say where this is not the encoder that was certified; "" where it is."""
        if self.encoder == encoder_fingerprint(self.settings.format):
            return ""
        return (
            f"the policy was certified with the encoder of vizcomp {self.version}, this is that of"
            f" {__version__}: its certificate does not cover these files; run vizcomp check, or"
            " vizcomp fit again"
        )


def _settings_to(settings: DjpegSettings) -> dict[str, Any]:
    """By djpeg's option names; what is as by default is left out."""
    values = settings.to_dict()
    further = [name for name in FURTHER if values[name] != getattr(DjpegSettings, name)]
    return {name.replace("_", "-"): values[name] for name in (*OPTIONS, *further)}


def _settings_from(values: Mapping[str, Any]) -> DjpegSettings:
    return DjpegSettings(**{name.replace("-", "_"): value for name, value in values.items()})


def policies_in(path: str | AnyPath) -> dict[str, Policy]:
    """The policies in a folder that `vizcomp fit --each` wrote, by the names of their folders; none
    where it is a file.

    Raises:
        InputError: a folder without them, or beside them one of its own; or as `Policy.read`.
    """
    place = _place(path)
    if isinstance(place, StorePath) or not os.path.isdir(place):
        return {}
    shown = printable(place)
    if (place / FILE_NAME).exists():
        raise InputError(
            f"{shown} is the folder of one policy", f"name the file: {printable(place / FILE_NAME)}"
        )
    found = {one.parent.name: one for one in sorted(place.glob(f"*/{FILE_NAME}"))}
    if not found:
        raise InputError(
            f"no folder in {shown} holds a {FILE_NAME}",
            "vizcomp fit --each writes one for each folder of photos",
        )
    return {name: Policy.read(one) for name, one in found.items()}


AGAIN = "make one with vizcomp fit"
NOT_SAID = (
    "Agreement with the systems' own answers on the sources, not accuracy; for photos like the"
    " sample."
)


NOT_SAID_OF_LABELS = (
    "An answer that is wrong on a source may be wrong in any way on the result; for photos like the"
    " sample."
)


def _given(part: Certificate | CertifiedSystem) -> dict[str, Any]:
    """A part of the file without what nobody asked for."""
    unasked = {
        "by": "",
        "labels": "",
        "test": "",
        "right_on_sources": -1.0,
        "right_on_results": -1.0,
        "one_answer": "",
    }
    return {
        name: value
        for name, value in dataclasses.asdict(part).items()
        if unasked.get(name) != value
    }


def percent(share: float) -> str:
    """A share as people write it: 0.01 as 1%."""
    return f"{100 * share:.4g}%"


def _place(path: str | AnyPath) -> AnyPath:
    return parse_place(path) if isinstance(path, str) else path


def _checksum(values: Mapping[str, Any]) -> str:
    """Of the values, not of the text: another layout or comment changes nothing that is
    promised."""
    return hashlib.sha256(_toml(values).encode()).hexdigest()[:16]


def _toml(values: Mapping[str, Any]) -> str:
    """Tables of strings, numbers and booleans, and arrays of such tables."""
    parts = []
    for name, value in values.items():
        for table in value if isinstance(value, list) else [value]:
            head = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            lines = (f"{key} = {_toml_value(item)}\n" for key, item in table.items())
            parts.append(f"\n{head}\n{''.join(lines)}")
    return "".join(parts)


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(_toml_character(character) for character in value) + '"'
    raise TypeError(f"no value for TOML: {value!r}")


def _toml_character(character: str) -> str:
    """TOML 1.0, basic strings: controls, quotes and backslashes escaped; halves of surrogate pairs
    are no text."""
    code = ord(character)
    if 0xD800 <= code < 0xE000:
        return "\\\\udc" + f"{code & 0xFF:02x}"
    if character in '"\\':
        return "\\" + character
    return f"\\u{code:04x}" if code < 32 or code == 127 else character
