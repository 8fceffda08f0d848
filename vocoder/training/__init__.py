"""Training: corpora, crops, objectives, the Lightning module and its callbacks.

The only package here that imports lightning. Import the modules by name
(`vocoder.training.corpus`, `vocoder.training.module`, ...): reading a corpus must not cost the
import of a training framework.
"""
