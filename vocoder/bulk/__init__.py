"""Whole corpora of mels or recordings to audio: in this process, or by workers on a Ray cluster.

What an item sounds like depends on its name, the seed and the model alone.
"""
