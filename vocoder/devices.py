"""Devices by name, as options and arguments give them."""

from __future__ import annotations

import torch


def device_named(name: str | torch.device) -> torch.device:
    """The device "auto" (CUDA if there is one, else the CPU), "cpu", "cuda", "cuda:1" and so on.

    Raises:
        ValueError: another name, or there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"there is no device {str(name)!r}: choose auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"PyTorch sees no device {name} here: choose cpu, or auto")
    return device
