"""What all models with a checkpoint share: recorded arguments, saving, loading and fusing."""

from __future__ import annotations

import copy
import functools
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from vocoder.atomic import write_atomic
from vocoder.audio import MelSpec, check_temperature
from vocoder.checkpoints import CheckpointError, write_checkpoint
from vocoder.flows import InvertibleConv1x1
from vocoder.nn.weight_norm import fuse_weight_norm

from .card import CARD_NAME, Card, model_card


class SavedModel(nn.Module):
    """Base class of vocoders and of the acoustic model; owns the `MelSpec` of its mels.

    A subclass passes its `MelSpec` to ``super().__init__`` and implements `header`. ``config`` then
    holds the constructor's arguments, which is all that a checkpoint needs besides the weights.
    """

    title: ClassVar[str]
    """Name of the model for people."""

    default_temperature: ClassVar[float] = 1.0
    """Temperature used by default."""

    card: ClassVar[Card]
    """What the model card says of all models of this class."""

    config: dict[str, Any]
    """The constructor's arguments as plain JSON values."""

    frozen = False
    """Whether the model is fused, so that its weights cannot change."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__:
            return
        build = cls.__init__
        signature = inspect.signature(build)

        @functools.wraps(build)
        def record_and_build(self: SavedModel, *args: Any, **kwargs: Any) -> None:
            # Only the outermost constructor: a subclass's arguments are not its parent's.
            outermost = type(self).__init__ is record_and_build
            if outermost:
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                self.config = {k: _plain(v) for k, v in bound.arguments.items() if k != "self"}
            build(self, *args, **kwargs)
            if outermost:
                self.config["mel_spec"] = self.mel_spec.to_dict()

        cls.__init__ = record_and_build  # type: ignore[method-assign]

    def __init__(self, mel_spec: MelSpec | str) -> None:
        super().__init__()
        _survive_forks()
        self.mel_spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio that mels are made of, Hz."""
        return self.mel_spec.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.parameters()).dtype

    def _temperature(self, temperature: float | None) -> float:
        """The temperature to use; ValueError if it is negative, infinite or NaN."""
        if temperature is None:
            return self.default_temperature
        check_temperature(temperature)
        return temperature

    # -- on disk -------------------------------------------------------------------------------

    @classmethod
    def header(cls) -> dict[str, str]:
        """The entry of ``config.json`` by which checkpoints of this class are recognised."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Path:
        """Write a checkpoint directory: ``model.safetensors`` and ``config.json``.

        A README.md (a model card) is added unless there is one, so that the directory can be
        uploaded to a hub of models as it is.

        Args:
            path: the directory.
            dtype: type that floating-point weights are stored in; torch.float16 halves the file. A
                loaded model is float32 in any case. None keeps their type.

        Returns:
            The directory.
        """
        weights = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        directory = write_checkpoint(path, {**self.header(), "config": self.config}, weights)
        if not (readme := directory / CARD_NAME).exists():
            write_atomic(readme, model_card(self.card, self.title, self.mel_spec).encode())
        return directory

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model with random weights, from the ``config`` of a checkpoint.

        Raises:
            CheckpointError: these are not arguments of this class.
        """
        try:
            spec = config.get("mel_spec")
            made = {"mel_spec": MelSpec.from_dict(spec)} if isinstance(spec, Mapping) else {}
            return cls(**{**config, **made})
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError,
                AssertionError, MemoryError) as error:  # fmt: skip
            raise CheckpointError(
                f"the config does not fit {cls.__name__} of this version: {error}"
            ) from error

    def load_weights(self, weights: Mapping[str, Tensor], path: str | os.PathLike[str]) -> Self:
        """Load the weights of the checkpoint at ``path``; returns the model, in evaluation mode.

        Raises:
            CheckpointError: names or shapes are not those of this model.
        """
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights in {path} do not fit their config: {error}"
            ) from error
        return self.eval()

    # -- fused ---------------------------------------------------------------------------------

    def _frozen_copy(self) -> Self:
        """A frozen copy with weight normalisation taken out, where there is an argument
        ``weight_norm``, and 1x1 convolutions inverted: see `FlowVocoder.fused`.
        """
        # A copy: building the model a second time takes longer than loading it.
        model = copy.deepcopy(self)
        weights = fuse_weight_norm(self.state_dict())
        for name, layer in list(model.named_modules()):
            if is_parametrized(layer, "weight"):
                # Not by `remove_parametrizations`: it changes the class, which copies share.
                layer.__class__ = type_before_parametrizations(layer)
                del layer.parametrizations
                layer._load_state_dict_pre_hooks.clear()  # weight_norm's, for old checkpoints
                others, layer._parameters = layer._parameters, {}
                layer.weight = nn.Parameter(weights[f"{name}.weight"])
                layer._parameters |= others
            elif isinstance(layer, InvertibleConv1x1):
                model.set_submodule(name, layer.fused())
        if "weight_norm" in model.config:
            model.config["weight_norm"] = False
        model.eval().requires_grad_(False)
        model.frozen = True
        return model

    def train(self, mode: bool = True) -> Self:
        if mode and self.frozen:
            raise RuntimeError(
                "a fused model is frozen: train the one that load_checkpoint gives, or start a "
                "recipe from it with --start_from"
            )
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.frozen:
            raise RuntimeError("a fused model is frozen: load the weights first, then fuse")
        return super().load_state_dict(state_dict, *args, **kwargs)


def _plain(value: Any) -> Any:
    """Tuples as the lists that they are in JSON."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@functools.cache
def _survive_forks() -> None:
    """From now on, forked children run PyTorch on a single thread.

    A fork copies the memory of PyTorch's thread pool but not its threads, so a child would wait for
    them for ever; on a single thread it needs no pool.
    """
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
