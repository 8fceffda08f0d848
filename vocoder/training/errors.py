"""What goes wrong in training that a user can mend: one sentence each."""


class TrainingError(Exception):
    """Training cannot go on; the message names the problem and the way out."""
