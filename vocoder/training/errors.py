"""The errors of this package that a user can do something about: each is one sentence."""


class TrainingError(Exception):
    """Training cannot go on; the message names the problem and the way out."""


class CorpusError(TrainingError):
    """A corpus is missing, unreadable or empty."""
