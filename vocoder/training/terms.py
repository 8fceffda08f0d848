"""Old names of `vocoder.training.losses`, for configurations that still use them."""

import warnings

from vocoder.training.losses import Likelihood, Loss, Mel, Stft

Term = Loss

__all__ = ["Likelihood", "Mel", "Stft", "Term"]

warnings.warn(
    "vocoder.training.terms is now vocoder.training.losses, and terms: is losses: in YAML; the old "
    "names go in the next version",
    FutureWarning,
    stacklevel=2,
)
