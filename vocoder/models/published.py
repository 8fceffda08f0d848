"""Weights of the published NVIDIA WaveGlow as a `WaveGlow` of this package."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vocoder.audio import MelSpec
from vocoder.checkpoints import CheckpointError
from vocoder.flows import AffineCoupling, InvertibleConv1x1
from vocoder.nn import fuse_weight_norm

from .waveglow import WaveGlow

# Published names -> ours: of modules within a coupling, and of numbers of the mel.
_STACK = {"cond_layer": "condition", "in_layers": "dilated", "res_skip_layers": "residual_skip"}
_MEL = {"sampling_rate": "sample_rate", "filter_length": "n_fft", "hop_length": "hop_length"}
_MEL |= {"win_length": "win_length", "mel_fmin": "fmin", "mel_fmax": "fmax"}


def load_published_waveglow(
    state_dict_or_path: Mapping[str, Any] | str | os.PathLike[str],
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> WaveGlow:
    """A `WaveGlow` with the weights of the published implementation; it computes the same numbers.

    The sizes are read off the tensors. The mel convention is that of Tacotron 2 (the preset
    ``ljspeech`` with ``center=True``) unless the config says otherwise.

    Args:
        state_dict_or_path: the state dict, or a dict that holds it under ``state_dict``, ``model``
            or ``weights``; or a path to a ``.safetensors`` or ``torch.save`` file of tensors.
        config: the published config (a dict, or a path to its JSON), whole or its
            ``waveglow_config`` part; its ``data_config``, if there, sets the mel convention.

    Raises:
        CheckpointError: the file holds a pickled module (none of its code is run), tensors are
            missing or left over, or the config contradicts the tensors.
    """
    content: Any = state_dict_or_path
    if not isinstance(content, Mapping):
        content = _read(Path(content))
    if config is not None and not isinstance(config, Mapping):
        try:
            config = json.loads(Path(config).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the config {config} is not readable: {error}") from error
    stated: Mapping[str, Any] = config or {}  # type: ignore[assignment]
    try:
        tensors = fuse_weight_norm(_tensors(content))
        sizes = _sizes(tensors)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"these are not the weights of a WaveGlow: {error}") from error
    part = stated.get("waveglow_config", stated)
    for name, value in (part | part.get("WN_config", {})).items():
        # Without a drop in width the tensors do not show the early outputs.
        shown = sizes.get(name, value) or value
        if value != shown:
            raise CheckpointError(f"the config says {name} = {value} and the tensors say {shown}")
    # Published models were trained on mels of Tacotron 2, whose frames are centred on k * hop.
    data = stated.get("data_config", {})
    spec = dataclasses.replace(
        MelSpec.preset("tacotron2"),
        n_mels=sizes.pop("n_mel_channels"),
        **{ours: data[theirs] for theirs, ours in _MEL.items() if theirs in data},
    )
    model = WaveGlow(spec, channels=sizes.pop("n_channels"), weight_norm=False, **sizes)
    try:
        model.load_state_dict(_renamed(tensors, model))
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit their sizes: {error}") from error
    return model.eval()


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: tensors and plain containers, never code.
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # the restricted unpickler fails in many ways
        raise CheckpointError(
            f"{path} is not a readable file of tensors alone ({type(error).__name__}); a pickled "
            "module could run code, so it is refused: load what the original code writes by "
            "torch.save({'state_dict': model.state_dict()}, 'tensors.pt')"
        ) from error


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict, wherever it is nested, without prefixes."""
    while nested := [k for k in ("state_dict", "model", "weights") if k in content]:
        content = content[nested[0]]
    known = re.compile(r"^(?:weights\.)?(?:module\.)*((?:upsample|convinv|WN)\..*)")
    return {match[1]: value.float() for k, value in content.items() if (match := known.match(k))}


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The published config's numbers, read off the shapes."""
    flows = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("convinv."))
    layers = 1 + max(int(n.split(".")[3]) for n in tensors if n.startswith("WN.0.in_layers."))
    widths = [tensors[f"convinv.{k}.conv.weight"].shape[0] for k in range(flows)]
    drops = [k for k in range(1, flows) if widths[k] != widths[k - 1]]
    return {
        "n_mel_channels": tensors["upsample.weight"].shape[0],
        "n_flows": flows,
        "n_group": widths[0],
        "n_early_every": drops[0] if drops else 0,
        "n_early_size": widths[drops[0] - 1] - widths[drops[0]] if drops else 0,
        "n_layers": layers,
        "n_channels": tensors["WN.0.start.weight"].shape[0],
        "kernel_size": tensors["WN.0.in_layers.0.weight"].shape[2],
    }


def _renamed(tensors: Mapping[str, Tensor], model: WaveGlow) -> dict[str, Tensor]:
    """Every tensor by the name that it has in our model."""
    names = {id(module): name for name, module in model.named_modules()}
    convolutions = [m for m in model.modules() if isinstance(m, InvertibleConv1x1)]
    couplings = [m for m in model.modules() if isinstance(m, AffineCoupling)]
    state: dict[str, Tensor] = {}
    for name, value in tensors.items():
        kind, *rest = name.split(".")
        if kind == "upsample":
            state[f"upsampling.conv.{rest[0]}"] = value
        elif kind == "convinv":
            state[f"{names[id(convolutions[int(rest[0])])]}.weight"] = value.squeeze(-1)
        else:
            stack = names[id(couplings[int(rest[0])].conditioner)]
            state[".".join([stack, _STACK.get(rest[1], rest[1]), *rest[2:]])] = value
    return state
