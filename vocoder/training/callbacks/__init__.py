"""Lightning callbacks: `weights` for what a run keeps (average, best, last checkpoint, snapshots),
and `monitor` for what it shows (history, TensorBoard, progress bar).
"""

from .monitor import HeldOutSound, History, TrainingBar, mel_picture
from .weights import AveragedWeights, Best, Interrupted, LastCheckpoint, Snapshots

__all__ = [
    "AveragedWeights",
    "Best",
    "HeldOutSound",
    "History",
    "Interrupted",
    "LastCheckpoint",
    "Snapshots",
    "TrainingBar",
    "mel_picture",
]
