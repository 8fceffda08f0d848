"""Lightning callbacks: `weights` for what a run keeps (average, last checkpoint, snapshots), and
`monitor` for what it shows (history, TensorBoard, progress bar).
"""

from .monitor import HeldOutSound, History, TrainingBar, mel_picture
from .weights import AveragedWeights, Interrupted, LastCheckpoint, Snapshots

__all__ = [
    "AveragedWeights",
    "HeldOutSound",
    "History",
    "Interrupted",
    "LastCheckpoint",
    "Snapshots",
    "TrainingBar",
    "mel_picture",
]
