"""Every error Rollmark raises on purpose, in one tree.

RollmarkError
├── ConfigError            a setting or option is wrong
├── InputError             an image or a value from outside is unusable
├── UnknownModelError      no model has that name
├── WeightsNotFoundError   a model is known, but no weights for it are
├── WeightsError           weights exist and do not fit or fail their hash
├── DatasetError           an archive, folder or split is not what it should be
├── TrainingError          a run cannot start, go on, or be resumed
├── HubError               the Hugging Face Hub refused or could not be reached
│   └── HubUnavailable     it was away, busy or asked to wait: trying again may help
├── PromotionRefused       the gate said no
├── Overtaken              another release is live than the one that was to be replaced
├── LedgerError            the ledger cannot be opened or written
│   ├── IllegalTransition  a review item cannot go from its state to the one asked for
│   ├── LeaseHeld          another process is doing what only one may do at a time
│   └── LeaseLost          this process was replaced and must write no more
└── LabelStudioError       Label Studio refused or could not be reached
    ├── LabelFormatError   a task or prediction does not fit the labelling configuration
    ├── RequestRefused     it answered with a clear no; nothing was done
    ├── RequestNotSent     it could not be reached or asked to wait; nothing was done
    └── OutcomeUnknown     the answer was lost; what was asked may or may not have been done

The message of each is one sentence for the person who sees it: what, the value seen, what would be
right. Errors of foreign libraries are mapped to this tree where they enter (`raise ... from exc`).
"""

from __future__ import annotations

from collections.abc import Iterable


class RollmarkError(Exception):
    """Base of every error that Rollmark raises on purpose; its text is fit for the user."""


class ConfigError(RollmarkError):
    """A setting or a command-line option is missing, misspelt or out of range."""


class InputError(RollmarkError):
    """An image or a value that came from outside cannot be used."""


class UnknownModelError(RollmarkError):
    """No model has the given name."""

    def __init__(self, name: str, available: Iterable[str]) -> None:
        super().__init__(f"Unknown model {name!r}. Available: {', '.join(available)}.")


class WeightsNotFoundError(RollmarkError):
    """The model exists, but no weights for it are bundled, local or cached."""


class WeightsError(RollmarkError):
    """Weights were found and do not fit the network, or their hash is not the one recorded."""


class DatasetError(RollmarkError):
    """An archive, folder, annotation or split is not what it should be."""


class TrainingError(RollmarkError):
    """A training run cannot start, go on, or be resumed."""


class HubError(RollmarkError):
    """The Hugging Face Hub refused a request or could not be reached."""


class HubUnavailable(HubError):
    """The Hub was away, busy with another commit, or asked to wait: trying again may help."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PromotionRefused(RollmarkError):
    """The promotion gate compared candidate and incumbent and said no."""


class Overtaken(RollmarkError):
    """Another release went live than the one that was to be replaced; nothing has changed."""


class LedgerError(RollmarkError):
    """The ledger cannot be opened, migrated or written."""


class IllegalTransition(LedgerError):
    """A review item cannot go from the state it is in to the one that was asked for."""


class LeaseHeld(LedgerError):
    """Another process holds the lease on something that only one may do at a time."""


class LeaseLost(LedgerError):
    """The lease ran out and another process took it; what this one wanted to write is refused."""


class LabelStudioError(RollmarkError):
    """Label Studio refused a request or could not be reached."""


class LabelFormatError(LabelStudioError):
    """A task, prediction or annotation does not fit the labelling configuration."""


class RequestRefused(LabelStudioError):
    """Label Studio answered with a clear no (4xx): nothing was done, and asking again is no use."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class RequestNotSent(LabelStudioError):
    """Label Studio could not be reached or asked to wait: nothing was done, try again later."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutcomeUnknown(LabelStudioError):
    """The answer was lost or makes no sense: what was asked may or may not have been done."""
