"""The trained models behind the page: found at the start, loaded once, when first used."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import vocoder
from vocoder.audio import MelSpec
from vocoder.checkpoints import CheckpointError
from vocoder.devices import device_named
from vocoder.hub import download, is_hub_name
from vocoder.models import FAMILIES, FlowVocoder, Vocoder, load_checkpoint
from vocoder.pretrained import ACOUSTIC_NAME, DEFAULT_NAME, bundled_models

if TYPE_CHECKING:
    from vocoder.text.acoustic import AcousticModel

AUTOREGRESSIVE_NAME = "autoregressive"
"""The bundled autoregressive model."""

Notify = Callable[[float, str], None]
"""Called with the share that is done, 0 to 1, and what comes next, such as "loading WaveNet"."""

Model = TypeVar("Model")


def silent(share: float, message: str) -> None:
    """A `Notify` that does nothing."""


class Models:
    """The models that the page uses, each loaded on first use and kept.

    Args:
        checkpoint: the page's vocoder, named as in `vocoder.load`; None for the bundled default.
        autoregressive: the model to compare it with, likewise; None for the bundled one.
        acoustic: the acoustic model (text to mel), likewise.
        device: where they run: "auto", "cpu" or "cuda".

    Raises:
        ValueError: there is no such device.
        CheckpointError: a named model does not exist or is of the wrong kind, or no default is
            bundled and no other model named.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        autoregressive: str | None = None,
        acoustic: str | None = None,
        device: str = "cpu",
    ) -> None:
        self._device = device_named(device)
        # All are checked now: a wrong name is for the person at the command line to correct, not
        # for a visitor of the page.
        bundled = bundled_models()
        if checkpoint is None and DEFAULT_NAME not in bundled:
            vocoder.load()  # raises, and says how to get a model
        self._vocoder = _path(checkpoint or DEFAULT_NAME)
        self.family = _family(self._vocoder)
        """Class of the page's vocoder."""
        self._autoregressive = (
            bundled.get(AUTOREGRESSIVE_NAME) if autoregressive is None else _path(autoregressive)
        )
        self.default_refine: int = _header(self._vocoder)["config"].get("refine", 0)
        """The page's vocoder's own number of sweeps of mel consistency."""
        self.autoregressive_family = _autoregressive_family(self._autoregressive)
        """Class of the autoregressive model; None if there is none."""
        self.autoregressive_is_bundled = autoregressive is None
        """Whether it is the bundled one, whose training was short."""
        self._acoustic = bundled.get(ACOUSTIC_NAME) if acoustic is None else _path(acoustic)
        self._loaded: dict[Path, Any] = {}
        self._lock = threading.Lock()

    @property
    def has_acoustic(self) -> bool:
        """Whether an acoustic model was named or is bundled."""
        return self._acoustic is not None

    def vocoder(self, notify: Notify = silent) -> Vocoder:
        """The page's vocoder."""
        return self._load(self._vocoder, notify)

    def flow(self, notify: Notify = silent) -> FlowVocoder:
        """The page's vocoder, where latents are needed.

        Raises:
            CheckpointError: it is not a flow.
        """
        if not issubclass(self.family, FlowVocoder):
            raise CheckpointError(
                f"the model is a {self.family.title}, which has no latent space: start the demo "
                "with the checkpoint of a flow"
            )
        return cast(FlowVocoder, self.vocoder(notify))

    def vocoder_for(self, spec: MelSpec, notify: Notify = silent) -> Vocoder:
        """The page's vocoder if it takes mels of ``spec``, else a bundled flow that does.

        The bundled models follow several mel conventions. If none fits, the page's vocoder.
        """
        if _mel_spec(self._vocoder) != spec:
            for path in bundled_models().values():
                family = FAMILIES.get(_header(path).get("family", ""))
                if family and issubclass(family, FlowVocoder) and _mel_spec(path) == spec:
                    return self._load(path, notify)
        return self.vocoder(notify)

    def autoregressive(self, notify: Notify = silent) -> Vocoder:
        """The autoregressive model.

        Raises:
            CheckpointError: there is none.
        """
        if self._autoregressive is None:
            raise CheckpointError(
                "no autoregressive model is bundled: train one (recipes/ljspeech/config/"
                "wavenet.yaml) and start the demo with --autoregressive runs/NAME/model"
            )
        return self._load(self._autoregressive, notify)

    def acoustic(self, notify: Notify = silent) -> AcousticModel:
        """The model that reads text.

        Raises:
            CheckpointError: there is none.
        """
        path = self._acoustic
        if path is None:
            return vocoder.load_acoustic()  # raises, and says how to get one
        return self._once(path, "the acoustic model", vocoder.load_acoustic, notify)

    def _load(self, path: Path, notify: Notify) -> Vocoder:
        return self._once(path, f"the {_family(path).title}", vocoder.load, notify)

    def _once(self, path: Path, title: str, load: Callable[[Path], Model], notify: Notify) -> Model:
        with self._lock:
            if path not in self._loaded:
                notify(0.0, f"loading {title}")
                self._loaded[path] = cast(Any, load(path)).to(self._device)
            return cast(Model, self._loaded[path])


def _path(name: str) -> Path:
    """Where the model of this name is: a checkpoint directory, or the weights file in one."""
    path = Path(name)
    if path.exists():
        if not _config(path).is_file():
            raise CheckpointError(
                f"{name} is not a checkpoint: give the directory with model.safetensors and "
                "config.json that a training run writes (runs/NAME/model)"
            )
        return path
    if is_hub_name(name):
        return download(name)
    bundled = bundled_models()
    if name not in bundled:
        have = f"the bundled models are {', '.join(bundled)}" if bundled else "none is bundled"
        raise CheckpointError(f"there is no model {name} ({have}): check the name")
    return bundled[name]


def _config(path: Path) -> Path:
    return (path if path.is_dir() else path.parent) / "config.json"


def _header(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its model, without the weights."""
    header: dict[str, Any] = json.loads(_config(path).read_text(encoding="utf-8"))
    return header


def _mel_spec(path: Path) -> MelSpec:
    return MelSpec.from_dict(_header(path)["config"]["mel_spec"])


def _family(path: Path) -> type[Vocoder]:
    family = FAMILIES.get(_header(path).get("family", ""))
    # If unknown, loading raises, and says what is wrong.
    return family or type(load_checkpoint(path))


def _autoregressive_family(path: Path | None) -> type[Vocoder] | None:
    if path is None:
        return None
    family = _family(path)
    if not family.sequential:
        raise CheckpointError(
            f"{path} is a {family.title} model, which makes all samples at once: give a WaveNet "
            "with --autoregressive"
        )
    return family
