"""The terms of the training loss, one class a file, each with its own weight and start.

In YAML they are a list, and a file that changes one of them restates the list:

    terms:
    - class_path: vocoder.training.terms.Likelihood
    - class_path: vocoder.training.terms.Stft
      init_args:
        weight: 1.5
        start: 0.15

No training framework here: a term sees a `vocoder.training.step.Step` and returns a scalar.
"""

from .base import Term, TrainedTerm, total_loss
from .likelihood import Likelihood
from .mel import Mel
from .stft import Stft, multi_resolution_stft

__all__ = [
    "Likelihood",
    "Mel",
    "Stft",
    "Term",
    "TrainedTerm",
    "multi_resolution_stft",
    "total_loss",
]
