"""The models behind the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import vocoder
from vocoder.checkpoints import CheckpointError
from vocoder.devices import device_named
from vocoder.models import Vocoder
from vocoder.pretrained import DEFAULT_NAME, bundled_models, load_text_to_mel
from vocoder.text.acoustic import AcousticModel

if TYPE_CHECKING:
    from vocoder.text.speech import TextToMel


class Models:
    """The models that a visitor chooses from: those named, then those bundled.

    Args:
        checkpoint: the page's vocoder, named as in `vocoder.load`; None for the bundled default.
        autoregressive, acoustic: models to compare it with and to speak by, likewise.
        device: where they run: "auto", "cpu" or "cuda".

    Raises:
        ValueError: there is no such device.
        CheckpointError: a model does not exist or is of the wrong kind.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        autoregressive: str | None = None,
        acoustic: str | None = None,
        device: str = "cpu",
    ) -> None:
        target = device_named(device)
        self.page = page = vocoder.load(checkpoint, device=target)
        own = checkpoint or DEFAULT_NAME
        self.vocoders: dict[str, Vocoder] = {own: page}  # by name; the page's own comes first
        self.voices: dict[str, TextToMel] = {}  # acoustic models, likewise
        if page.config.get("source"):
            # The base density without the network on top: pitch and noise.
            alone = type(page).from_config({**page.config, "n_flows": 0})
            own_weights = page.state_dict()
            alone.load_state_dict({name: own_weights[name] for name in alone.state_dict()})
            alone = alone.fused().to(target).restored_by(page.restoration)
            self.vocoders[f"{own}, source alone"] = alone
        if autoregressive is not None:
            model = vocoder.load(autoregressive, device=target)
            if not model.sequential:
                raise CheckpointError(
                    f"{autoregressive} is a {model.title} model, which makes all samples at once: "
                    "give an autoregressive one with --autoregressive"
                )
            self.vocoders[autoregressive] = model
        if acoustic is not None:
            self.voices[acoustic] = load_text_to_mel(acoustic, target)
        for name, path in bundled_models().items():
            header = json.loads((path / "config.json").read_text(encoding="utf-8"))
            if header.get(AcousticModel.key) == AcousticModel.architecture:
                if name not in self.voices:
                    self.voices[name] = vocoder.load_acoustic(path, device=target)
            elif Vocoder.key in header and name not in self.vocoders:
                model = vocoder.load(path, device=target)
                # The bundled autoregressive model makes room for another.
                if autoregressive is None or not model.sequential:
                    self.vocoders[name] = model

    def title(self, name: str) -> str:
        """What the page calls a vocoder."""
        return f"{self.vocoders[name].title} ({name})"
