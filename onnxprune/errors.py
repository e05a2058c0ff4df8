"""Every exception that onnxprune raises on purpose.

OnnxpruneError               one line for a person: what is wrong and what to do; exit code 1
├── UsageError               the request itself is wrong (ratio, names, options); exit code 2
│   └── WrongTypeError       a value of a type that is not accepted; a TypeError, too
├── ModelError               the file is not a model that can be worked on
├── DataError                calibration data that is missing, empty or does not fit the model
├── NothingToPruneError      no group is left to take units from
├── TargetError              no cut meets the targets
├── DamageError              the result fell apart, and `strict` refuses that
├── PlanError                a plan that does not fit the model
├── MissingExtraError        a heavy dependency is not installed
└── VerificationError        the result failed a check and was not written
"""

from __future__ import annotations


class OnnxpruneError(Exception):
    """Base of the tree. The message is one line and says what to do."""

    exit_code = 1


class UsageError(OnnxpruneError):
    """The request itself is wrong: an unknown name, a ratio outside [0, 1), a malformed option."""

    exit_code = 2


class WrongTypeError(UsageError, TypeError):
    """A value of a type that is not accepted; the message names what is."""


class ModelError(OnnxpruneError):
    """The file is missing, not ONNX, truncated, unsafe, or refused by ONNX Runtime."""


class DataError(OnnxpruneError):
    """Calibration data that is missing, empty, damaged, or does not fit the model's inputs."""


class NothingToPruneError(OnnxpruneError):
    """Every dimension is frozen or excluded by the request."""


class TargetError(OnnxpruneError):
    """No cut of the model that may be made meets the targets that were asked for."""


class DamageError(OnnxpruneError):
    """The result gives other answers than the original, and `strict` was set. Nothing was written."""


class DamageWarning(UserWarning):
    """The result gives other answers than the original; see `evaluation.damage`."""


class PlanError(OnnxpruneError):
    """A plan that names groups or units that the model does not have."""


class MissingExtraError(OnnxpruneError):
    """A dependency that is an extra of this package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'onnxprune[{extra}]'")


class VerificationError(OnnxpruneError):
    """The pruned model failed the checker, shape inference or ONNX Runtime. Nothing was written."""
