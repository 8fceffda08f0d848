"""The trained models behind the page: looked for at the start, loaded when first used, once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vocoder
from vocoder.audio import MelSpec
from vocoder.checkpoints import CheckpointError
from vocoder.models import Vocoder, WaveGlow
from vocoder.models.autoregressive import AutoregressiveVocoder
from vocoder.pretrained import ACOUSTIC_NAME, DEFAULT_NAME, bundled_models

if TYPE_CHECKING:
    from vocoder.text.acoustic import AcousticModel

WAVENET_NAME = "wavenet"
"""The bundled autoregressive model."""

Notify = Callable[[float, str], None]
"""Told how far things are, 0 to 1, and what is going on, such as "loading the flow"."""


class Models:
    """The models that the page uses, each loaded on first use and kept.

    Args:
        checkpoint: the flow: a checkpoint directory or the name of a bundled model; None for the
            bundled default.
        wavenet: the autoregressive model, likewise; None for the bundled one.
        acoustic: the acoustic model (text to mel), likewise.

    Raises:
        CheckpointError: a model that is named is not there, or no flow is bundled and none named.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        wavenet: str | None = None,
        acoustic: str | None = None,
    ) -> None:
        self._names = {"flow": checkpoint, "wavenet": wavenet, "acoustic": acoustic}
        # Before a page is served: a name that was mistyped is the user's to mend on the command
        # line, not a visitor's in the page.
        for name in (checkpoint, wavenet, acoustic):
            if name is not None:
                _directory(name)
        if checkpoint is None and DEFAULT_NAME not in bundled_models():
            vocoder.load()  # which says what to do
        self._loaded: dict[str, Any] = {}
        self._lock = threading.Lock()

    # -- what there is -------------------------------------------------------------------------

    @property
    def has_wavenet(self) -> bool:
        """Whether an autoregressive model was named or is bundled."""
        return self._names["wavenet"] is not None or WAVENET_NAME in bundled_models()

    @property
    def wavenet_is_bundled(self) -> bool:
        """Whether it is the bundled one, whose training was short."""
        return self._names["wavenet"] is None

    @property
    def has_acoustic(self) -> bool:
        """Whether an acoustic model was named or is bundled."""
        return self._names["acoustic"] is not None or ACOUSTIC_NAME in bundled_models()

    # -- loaded on first use -------------------------------------------------------------------

    def flow(self, notify: Notify | None = None) -> Vocoder:
        """The flow that the page speaks with."""
        return self._vocoder("flow", self._names["flow"], "the flow", notify)

    def wavenet(self, notify: Notify | None = None) -> AutoregressiveVocoder:
        """The autoregressive model to compare with.

        Raises:
            CheckpointError: there is none, or it goes not sample by sample.
        """
        if not self.has_wavenet:
            raise CheckpointError(
                "no autoregressive model is bundled: train one (recipes/ljspeech/config/"
                "wavenet.yaml) and start the demo with --wavenet runs/NAME/model"
            )
        name = self._names["wavenet"] or WAVENET_NAME
        model = self._vocoder("wavenet", name, "the WaveNet", notify)
        if not isinstance(model, AutoregressiveVocoder):
            raise CheckpointError(
                f"{name} is a {model.family} model, which makes all samples at once: give a "
                "WaveNet or WaveRNN with --wavenet"
            )
        return model

    def acoustic(self, notify: Notify | None = None) -> AcousticModel:
        """The model that reads text.

        Raises:
            CheckpointError: there is none.
        """
        name = self._names["acoustic"]
        model: AcousticModel = self._once(
            "acoustic", "the acoustic model", lambda: vocoder.load_acoustic(name), notify
        )
        return model

    def flow_beside(self, spec: MelSpec, notify: Notify | None = None) -> Vocoder:
        """The flow that takes mels of ``spec``, if there is one: else the one of the page.

        The bundled models are of several conventions; a comparison on the same mel takes the flow
        that shares the convention of its rival.
        """
        flow = self.flow(notify)
        if flow.mel_spec == spec:
            return flow
        for name, folder in bundled_models().items():
            header = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config = header.get("config", {})
            same = config.get("mel_spec") == spec.to_dict()
            if same and header.get("family") == WaveGlow.family:
                return self._vocoder(f"flow {name}", name, f"the flow {name!r}", notify)
        return flow

    def latent_flow(self, notify: Notify | None = None) -> WaveGlow:
        """The page's flow, where latents are wanted.

        Raises:
            CheckpointError: the model named is no flow.
        """
        flow = self.flow(notify)
        if not isinstance(flow, WaveGlow):
            raise CheckpointError(
                f"the model is a {flow.family}, which has no latent space: start the demo with "
                "the checkpoint of a flow"
            )
        return flow

    def _vocoder(self, key: str, name: str | None, title: str, notify: Notify | None) -> Vocoder:
        model: Vocoder = self._once(key, title, lambda: vocoder.load(name), notify)
        return model

    def _once(self, key: str, title: str, load: Callable[[], Any], notify: Notify | None) -> Any:
        with self._lock:
            if key not in self._loaded:
                if notify is not None:
                    notify(0.0, f"loading {title}")
                self._loaded[key] = load()
            return self._loaded[key]


def _directory(name: str) -> Path:
    """Where a model lies that was named on the command line."""
    path = Path(name)
    if path.exists():
        folder = path if path.is_dir() else path.parent
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{name} is no checkpoint: give the directory with model.safetensors and "
                "config.json that a training run writes (runs/NAME/model)"
            )
        return folder
    bundled = bundled_models()
    if name not in bundled:
        have = f"the bundled models are {', '.join(bundled)}" if bundled else "none is bundled"
        raise CheckpointError(f"there is no model {name} ({have}): check the name")
    return bundled[name]
