"""Checkpoints on disk: safetensors and JSON, never a pickle."""

from .store import CheckpointError, read_checkpoint, write_checkpoint

__all__ = ["CheckpointError", "read_checkpoint", "write_checkpoint"]
