"""Whole corpora of mels or recordings to audio: in this process, or by workers on a Ray cluster.

`items` finds what there is to do, `rendering` turns an item into a file, and `cluster` does so on
many machines. What an item sounds like depends on its name, the seed and the model alone.
"""

from vocoder.bulk.items import Item, Outcome, find, item_seed, longest_first
from vocoder.bulk.rendering import Renderer, Settings, begin, is_there, make_folder, write_lists

__all__ = [
    "Item", "Outcome", "Renderer", "Settings", "begin", "find", "is_there", "item_seed",
    "longest_first", "make_folder", "write_lists",
]  # fmt: skip
