"""Tacotron 2 in place of the bundled acoustic model, with the weights that torchaudio offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocoder.audio import MelSpec
from vocoder.checkpoints import CheckpointError


class Tacotron2:
    """Text to log-mel by Tacotron 2, letter by letter, in the voice of LJSpeech.

    The pipeline TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH of torchaudio. Its weights (about 110 MB) are
    downloaded when the first model is made, and kept in the folder of `torch.hub`; CheckpointError
    if that fails. Paper: Shen et al., 2018, arXiv 1712.05884.
    """

    reads_text = True
    """`synthesize` takes the letters of normalised text, not phonemes."""

    voices, states = ("ljspeech",), 1

    def __init__(self) -> None:
        from torchaudio.pipelines import TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH as PIPELINE

        self.mel_spec = MelSpec.preset("ljspeech")
        self._processor = PIPELINE.get_text_processor()
        how = {"map_location": "cpu", "weights_only": True}
        try:
            self.network = PIPELINE.get_tacotron2(dl_kwargs=how).eval()
        except Exception as error:  # of the network, the disk and the file: no common base
            kept = Path(torch.hub.get_dir()) / "checkpoints"
            raise CheckpointError(
                f"the weights of Tacotron 2 cannot be had ({error}): try again with a connection, "
                f"after deleting what is left of them in {kept}"
            ) from error

    def to(self, device: str | torch.device) -> Tacotron2:
        self.network.to(device)
        return self

    def check(
        self, voice: str | None = None, speaking_rate: float = 1.0, pitch: float = 0.0
    ) -> None:
        """Raises ValueError if there is no such voice, or rate or pitch is to change."""
        if voice not in (None, *self.voices):
            raise ValueError(f"there is no voice {voice!r}: Tacotron 2 has {self.voices[0]} alone")
        if speaking_rate != 1 or pitch != 0:
            raise ValueError("Tacotron 2 has no control of rate and pitch: leave them out")

    def durations(self, *_: Any) -> Tensor:
        """Raises ValueError: Tacotron 2 does not know when a word is heard."""
        raise ValueError("Tacotron 2 gives no timestamps: leave them out")

    def indices(self, text: Sequence[str]) -> Tensor:
        """Indices of letters and punctuation for the network, (letters,); ValueError if none."""
        letters: Tensor = self._processor("".join(text))[0][0]
        if not len(letters):
            raise ValueError("there are no letters to say: the text is empty")
        return letters

    @torch.inference_mode()
    def synthesize(self, text: Sequence[str], *_: Any) -> Tensor:
        """The log-mel (80, frames) of a sentence in letters, at most 2,000 frames (23 s); its
        dropout is seeded with 0."""
        letters = self.indices(text)[None]
        lengths = torch.tensor([letters.shape[1]])
        device = next(self.network.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            mel, frames, _ = self.network.infer(letters.to(device), lengths.to(device))
        result: Tensor = mel[0, :, : int(frames[0])]
        return result
