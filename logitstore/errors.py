"""Every error that logitstore raises on purpose.

    LogitStoreError                       exit code 2, one sentence: what, where, what to do
    ├── InputError (ValueError)           a flag, a file or a value the user gave cannot be used
    │   ├── DataError                     a data set: absent, empty, unreadable, of an unknown kind
    │   │   └── SplitError                a data set has no split of this name
    │   ├── DecodeError                   one image of a data set does not decode
    │   ├── ModelError                    a teacher or student: unknown, without weights, without classifier
    │   └── ViewError                     a view spec or a user's own transform
    ├── NonFiniteError (ArithmeticError)  the teacher gave NaN or Inf; the dump stops
    ├── PeerError                         another process of the run failed, and says why; exit code 1
    └── StoreError                        a store on disk
        ├── StoreNotFoundError (FileNotFoundError)   no store at this path
        ├── FormatError                   not a store, or another format version
        ├── IncompleteError               a shard that was asked for has no commit
        ├── DamagedError                  an object differs from the checksum in its commit
        ├── ClaimLostError                another process took this shard over
        └── MismatchError (ValueError)    stored and present value differ, shown side by side
            └── WitnessError              a replayed view differs from the dumped one

Foreign errors are re-raised as one of these with ``from exc``. This module imports nothing.
"""


class LogitStoreError(Exception):
    """Base of all errors raised on purpose; ``cli`` prints the message and exits with ``exit_code``."""

    exit_code = 2


class InputError(LogitStoreError, ValueError):
    """A flag, a file or a value that the user gave cannot be used."""


class DataError(InputError):
    """A data set is absent, empty, unreadable or of an unknown kind."""


class SplitError(DataError):
    """A data set has no split of this name."""


class DecodeError(InputError):
    """One image does not decode; the message carries its name."""


class ModelError(InputError):
    """A teacher or student is unknown, has no weights, no classifier, or another shape than its weights."""


class ViewError(InputError):
    """A view spec is invalid, or a user's own transform is not a function of its seed."""


class NonFiniteError(LogitStoreError, ArithmeticError):
    """The teacher gave a NaN or an Inf."""


class PeerError(LogitStoreError):
    """Another process of the same run failed or ended. Without a message where that process says why."""

    exit_code = 1


class StoreError(LogitStoreError):
    """Something about a store on disk."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at this path."""


class FormatError(StoreError):
    """The path holds no store, or one of another format version."""


class IncompleteError(StoreError):
    """A shard that was asked for has no commit."""


class DamagedError(StoreError):
    """A stored object differs from the checksum in its commit, or is absent although committed."""


class ClaimLostError(StoreError):
    """Another process took the shard over while this one was working on it."""


class MismatchError(StoreError, ValueError):
    """A stored and a present value differ.

    Args:
        what: the thing compared, in the words of the docs ("data set fingerprint").
        stored: the value in the store.
        present: the value found now.
        remedy: what to do about it, one sentence.
    """

    def __init__(self, what: str, *, stored: object, present: object, remedy: str) -> None:
        super().__init__(f"{what} differs.\n  stored:  {stored}\n  present: {present}\n{remedy}")
        self.what = what
        self.stored = stored
        self.present = present
        self.remedy = remedy


class WitnessError(MismatchError):
    """A replayed view is not, pixel for pixel, the view the teacher saw."""
