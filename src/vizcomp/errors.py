"""The one error tree. Every error that a user can cause is one of these.

    VizcompError                  base: one line for what is wrong, one for what to try
    ├── InputError                an input cannot be read or used: missing, no image, too large
    ├── OutputError               an output cannot be written: no permission, space, overwrite
    ├── FormatError               bytes break the format they claim to be
    │   ├── TruncatedError        the data end before the format says so
    │   ├── DamagedError          coded samples that a decoder can only guess at
    │   ├── UnsupportedError      a valid stream that uses a feature we do not read
    │   └── TooLargeError         a size beyond the stated limit, refused before memory is taken
    ├── ModelError                a model is unknown, or its weights do not match
    │   └── WeightsMissingError   weights are not there and could not be had (exit code 3)
    ├── MissingExtraError         an optional dependency is not installed
    ├── SettingsError             a setting is out of range, or two contradict (exit code 2)
    ├── TrainingError             training cannot go on: no data, loss not finite, no memory
    └── EngineError               the engine that runs the tasks failed

The command line prints `message` and `hint` and leaves with `exit_code`. Any other exception is a
defect of ours and shows its traceback.
"""

from __future__ import annotations


class VizcompError(Exception):
    """Base of all errors that a user can cause.

    Args:
        message: what is wrong, one line, naming the file or the setting.
        hint: what to try, one line; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[VizcompError], tuple[str, str]]:
        # workers send errors by pickle: the hint must travel too
        return type(self), (self.message, self.hint)


class InputError(VizcompError):
    """An input cannot be read or used."""

    exit_code = 2  # where it ends a command; inside a batch it ends in a record


class OutputError(VizcompError):
    """An output cannot be written."""

    exit_code = 2


class FormatError(VizcompError):
    """Bytes break the format that they claim to be."""


class TruncatedError(FormatError):
    """The data end before the format says so."""


class DamagedError(FormatError):
    """Coded samples that a decoder can only guess at, with a warning if it gives any."""


class UnsupportedError(FormatError):
    """A valid stream that uses a feature we do not read."""


class TooLargeError(FormatError):
    """A size beyond the stated limit; refused before memory is taken."""


class ModelError(VizcompError):
    """A model is unknown, or its weights do not match."""

    exit_code = 2


class WeightsMissingError(ModelError):
    """Weights are not there and could not be had."""

    exit_code = 3


class MissingExtraError(VizcompError):
    """An optional dependency is not installed.

    Args:
        package: the package that is missing.
        extra: the extra of vizcomp that brings it.
    """

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed: the extra {extra} brings it",
            f"pip install 'vizcomp[{extra}]'",
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[VizcompError], tuple[str, str]]:
        return type(self), (self.package, self.extra)


class SettingsError(VizcompError):
    """A setting is out of range, or two settings contradict each other."""

    exit_code = 2


class TrainingError(VizcompError):
    """Training cannot go on."""


class EngineError(VizcompError):
    """The engine that runs the tasks failed."""


def in_one_line(error: BaseException) -> str:
    """All that an exception says, on one line of at most 200 characters; the name of its class
    where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; the name of its class where it says nothing, as
    MemoryError does."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


def was_interrupted(error: BaseException) -> bool:
    """Whether an error came of Ctrl-C or SIGTERM: while a library or a network loads, a signal can
    look like a broken file."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
