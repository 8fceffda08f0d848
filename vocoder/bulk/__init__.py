"""Whole corpora of mels or recordings to audio: in this process, or by workers on a Ray cluster.

`items` finds what there is to do and cuts it into batches, `rendering` turns a batch into files,
and `cluster` does so on many machines. What an item sounds like depends on its name, the seed and
the model, not on its batch, the number of workers, or a worker that died.
"""

from vocoder.bulk.items import Item, Outcome, batches, find, item_seed
from vocoder.bulk.rendering import Renderer, Settings, begin, is_there, render, write_lists

__all__ = [
    "Item",
    "Outcome",
    "Renderer",
    "Settings",
    "batches",
    "begin",
    "find",
    "is_there",
    "item_seed",
    "render",
    "write_lists",
]
