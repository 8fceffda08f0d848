"""Models with a checkpoint, and the contract of every vocoder: mel in, audio out, repeatable."""

from __future__ import annotations

import copy
import functools
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from vocoder.atomic import write_atomic
from vocoder.audio import LogMel, MelGriffinLim, MelSpec, Refine, check_mel, check_temperature
from vocoder.audio.refinement import schedule
from vocoder.audio.validation import LOUDEST, Clamp, as_tensor, check_audio, check_layout
from vocoder.checkpoints import CheckpointError, read_checkpoint, write_checkpoint
from vocoder.flows import InvertibleConv1x1

from .card import CARD_NAME, VOCODER, Card, model_card
from .streaming import Renderer, in_windows

Array = TypeVar("Array", Tensor, NDArray[Any])
T = TypeVar("T")

LONGEST_PASS = 8192
"""Mel frames that `Vocoder.synthesize` renders at once; 95 s at 22,050 Hz and a hop of 256."""


class SavedModel(nn.Module):
    """Base class of models with a checkpoint; owns the `MelSpec` of their mels."""

    architecture: ClassVar[str]
    """Name of the architecture in checkpoints and on the command line."""

    key: ClassVar[str] = "kind"
    """Entry of ``config.json`` that holds the architecture."""

    title: ClassVar[str]
    card: ClassVar[Card]
    default_temperature: float = 1.0

    former: ClassVar[set[str]] = set()
    """Arguments of version 0.2, which checkpoints may have, and which say nothing now."""

    config: dict[str, Any]
    """The constructor's arguments: all that a checkpoint needs besides the weights."""

    frozen = False  # by `fused`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        build = cls.__init__

        @functools.wraps(build)
        def record_and_build(self: SavedModel, *args: Any, **kwargs: Any) -> None:
            build(self, *args, **kwargs)
            # Only the outermost constructor: a subclass's arguments are not its parent's.
            if type(self).__init__ is record_and_build:
                bound = inspect.signature(build).bind(self, *args, **kwargs)
                bound.apply_defaults()
                given = {**bound.arguments, "mel_spec": self.mel_spec.to_dict()}
                self.config = {
                    name: list(value) if isinstance(value, tuple) else value  # as in JSON
                    for name, value in given.items()
                    if name != "self"
                }

        cls.__init__ = record_and_build  # type: ignore[method-assign]

    def __init__(self, mel_spec: MelSpec | str) -> None:
        super().__init__()
        _survive_forks()
        self.mel_spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio, Hz."""
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
        if temperature is not None:
            check_temperature(temperature)
            return temperature
        return self.default_temperature

    def save(self, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Path:
        """Write a checkpoint directory, which is returned, and a model card unless there is one.

        A ``dtype`` of torch.float16 halves the file; a loaded model is float32 in any case.
        """
        weights = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        header = {self.key: self.architecture, "config": self.config}
        directory = write_checkpoint(path, header, weights)
        if not (readme := directory / CARD_NAME).exists():
            write_atomic(readme, model_card(self.card, self.title, self.mel_spec).encode())
        return directory

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model with random weights; CheckpointError if these are not arguments of this class."""
        try:
            arguments = {k: v for k, v in config.items() if k not in cls.former}
            if isinstance(spec := config.get("mel_spec"), Mapping):
                arguments["mel_spec"] = MelSpec.from_dict(spec)
            return cls(**arguments)
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            raise CheckpointError(
                f"the config does not fit {cls.__name__} of this version: {error}"
            ) from error

    @classmethod
    def renamed(cls, name: str) -> str:
        """The present name of a weight in a checkpoint of an earlier version."""
        return name

    @classmethod
    def from_checkpoint(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The model of a checkpoint, in evaluation mode; CheckpointError if its parts misfit."""
        model = cls.from_config(config)
        try:
            model.load_state_dict({cls.renamed(name): value for name, value in tensors.items()})
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit the config: {error}") from error
        return model.eval()

    @classmethod
    def load(cls, path: str | os.PathLike[str], recipe: str) -> Self:
        """The model of a checkpoint directory; CheckpointError, by ``recipe``, if it has none."""
        header, tensors = read_checkpoint(path)
        config = header.get("config")
        if header.get(cls.key) != cls.architecture or not isinstance(config, Mapping):
            what = f"a vocoder ({header['family']})" if "family" in header else "something else"
            raise CheckpointError(
                f"{path} holds {what} and no {cls.title}: give a checkpoint of {recipe}"
            )
        return cls.from_checkpoint(config, tensors)

    def _frozen_copy(self) -> Self:
        """A frozen copy without weight normalisation, its 1x1 convolutions inverted."""
        model = copy.deepcopy(self)
        for name, layer in list(model.named_modules()):
            if is_parametrized(layer, "weight"):
                weight = layer.weight.detach()
                # Not by `remove_parametrizations`: it changes the class, which copies share.
                layer.__class__ = type_before_parametrizations(layer)
                del layer.parametrizations
                layer._load_state_dict_pre_hooks.clear()  # weight_norm's, for old checkpoints
                layer.weight = nn.Parameter(weight)
            elif isinstance(layer, InvertibleConv1x1):
                model.set_submodule(name, layer.fused())
        if "weight_norm" in model.config:
            model.config["weight_norm"] = False
        model.eval().requires_grad_(False)
        model.frozen = True
        return model

    def train(self, mode: bool = True) -> Self:
        if mode and self.frozen:
            raise RuntimeError("a fused model is frozen: train what load_checkpoint gives")
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.frozen:
            raise RuntimeError("a fused model is frozen: load the weights first, then fuse")
        return super().load_state_dict(state_dict, *args, **kwargs)


class Vocoder(SavedModel, ABC):
    """Base class of all vocoders: F frames of mel describe exactly F * hop samples."""

    key = "family"
    card = VOCODER

    likelihood: ClassVar[Literal["exact", "lower bound"] | None] = None
    """What `log_prob` gives; None if there is none."""

    sequential: ClassVar[bool] = False  # samples are drawn one by one
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32,)  # that `fused` can compute in
    default_refine: Refine  # of `synthesize` and `stream`: the constructor's argument
    restoration: Any = None  # see `restored_by`

    def __init__(self, mel_spec: MelSpec | str, refine: Refine = 0) -> None:
        super().__init__(mel_spec)
        schedule(refine, self.mel_spec)  # checks it
        self.default_refine = refine
        self.mel_griffin_lim = MelGriffinLim(self.mel_spec)
        self._log_mel = LogMel(self.mel_spec)

    @property
    @abstractmethod
    def context_frames(self) -> tuple[int | None, int]:
        """Frames before (None: all) and after a frame of mel on which its samples depend."""

    @abstractmethod
    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        """Audio (batch, frames * hop) from a checked mel (batch, n_mels, frames), of which
        ``first_frame`` is the absolute index of the first frame, by which noise is drawn.
        """

    @property
    def noise_per_frame(self) -> int:
        """Standard normal numbers that `sample` takes for each frame of mel."""
        return self.mel_spec.hop_length

    def sample(self, mel: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Audio, not clipped, from a mel (batch, n_mels, frames) and standard normal noise
        (batch, frames, `noise_per_frame`); differentiable.
        """
        raise NotImplementedError(f"no gradient passes through samples of {type(self).__name__}")

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        """log p(audio | mel) in nats, (batch,), for audio of exactly frames * hop samples."""
        raise NotImplementedError(f"{type(self).__name__} is not a density of audio")

    def restored_by(self, restoration: Any) -> Self:
        """Restore mels with a `vocoder.models.restoration.Restoration`, or None; returns the model.

        It is neither trained nor saved with the model. ValueError if it is for other mels.
        """
        if restoration is not None and restoration.mel_spec != self.mel_spec:
            raise ValueError(
                f"the restoring flow is for mels of {restoration.mel_spec} and the vocoder for "
                f"{self.mel_spec}"
            )
        object.__setattr__(self, "restoration", restoration)  # no submodule
        return self

    def mel(self, audio: Array) -> Array:
        """The log-mel spectrogram of audio, in the convention of this model.

        Args:
            audio: (samples,) or (batch, samples), in [-1, 1], at `sample_rate`.

        Returns:
            (n_mels, frames) or (batch, n_mels, frames), float32, of the same kind as ``audio``.

        Raises:
            ValueError: audio of another shape or type, empty, or far beyond [-1, 1].
        """
        tensor = as_tensor(audio, "audio")
        check_audio(tensor, LOUDEST)
        return _like(audio, self._log_mel(tensor.to(self.device)))

    def synthesize(
        self,
        mel: Array,
        temperature: float | None = None,
        seed: int | Sequence[int] | None = 0,
        lengths: Sequence[int] | None = None,
        refine: Refine | None = None,
        restore: float | None = None,
    ) -> Array:
        """Audio from a log-mel spectrogram.

        Args:
            mel: (n_mels, frames) or (batch, n_mels, frames) in the convention of `mel_spec`.
            temperature: scale of the latent noise, 0 or more; 0 is deterministic, 1 samples the
                model's density. None takes the model's `default_temperature`.
            seed: the same seed gives the same audio, alone or in a batch, whatever the neighbours
                and the padding; one for all items, or one for each. None draws a new one.
            lengths: number of valid frames of each item of a padded batch; audio beyond is zero.
            refine: iterations that match the mel of the audio to ``mel`` (`vocoder.refine_audio`):
                their number, or a schedule, "fast", "default" or "best"; 0 gives the model's own
                audio. None takes the model's `default_refine`.
            restore: how far mels that no audio has, such as an acoustic model's, are turned into
                mels of speech first (`restoration`): 1 in full, 0 not at all. Mels of recordings
                stay nearly as they are. None is 1 where there is a `restoration`.

        Returns:
            (frames * hop,) or (batch, frames * hop), float32 in [-1, 1], of the kind of ``mel``.

        Raises:
            MelError: the mel cannot come from `mel_spec`, or its audio is far beyond full scale, as
                that of normalised mels is; the message says what differs.
            ValueError: an argument is out of range, or restore is given without a `restoration`.

        Warns:
            UserWarning: more than a few samples were beyond [-1, 1] and clamped.
        """
        frames = self._checked(mel)
        temperature = self._temperature(temperature)
        iterations = schedule(self.default_refine if refine is None else refine, self.mel_spec)
        restorer, strength = self._restorer(restore)
        batch = frames if frames.ndim == 3 else frames.unsqueeze(0)
        noise, longest = Noise(seed, len(batch)), batch.shape[2]
        sizes = [longest] * len(batch) if lengths is None else list(map(int, lengths))
        if len(sizes) != len(batch) or not all(0 < size <= longest for size in sizes):
            raise ValueError(
                f"lengths {sizes} do not fit a batch of {len(batch)} mels of {longest} frames: "
                "give one number of frames per item, from 1 to the padded length"
            )
        clamps = [Clamp(self.mel_spec, temperature) for _ in sizes]
        for clamp, item, size in zip(clamps, batch, sizes, strict=True):
            clamp.expect(item[:, :size])
        audio = torch.zeros(len(batch), longest * self.mel_spec.hop_length, device=self.device)
        with torch.no_grad():
            # Items of equal length share a pass; padding never enters one, so it cannot be heard.
            for size in sorted(set(sizes)):
                rows = [i for i, own in enumerate(sizes) if own == size]
                own, own_noise = batch[rows, :, :size], noise.of_items(rows)
                if restorer is not None:
                    own = restorer.restore(own, None, own_noise, strength)
                generated = self._in_windows(own, own_noise, temperature).float()
                refined = self._refined(generated, own, iterations)
                for row, item in zip(rows, refined, strict=True):
                    audio[row, : len(item)] = clamps[row](item)
        for clamp in clamps:
            clamp.finish()
        return _like(mel, audio if frames.ndim == 3 else audio[0])

    def stream(
        self,
        mel_chunks: Iterable[Array],
        temperature: float | None = None,
        seed: int | None = 0,
        refine: Refine | None = None,
        restore: float | None = None,
        look_ahead: int | None = None,
    ) -> Iterator[Array]:
        """Audio chunk by chunk from chunks of mel, in constant memory.

        By default the stream is exact: the concatenated chunks equal `synthesize` of the
        concatenated mel, and lag the input by `model.look_ahead` frames. With a short delay of
        ``look_ahead`` frames it is other audio, nearly as good, the same however the mel is cut
        (`vocoder.backends.look_ahead.short_delay`). F frames give F * hop samples either way.

        Args:
            mel_chunks: (n_mels, frames) each, of any lengths.
            temperature, seed, refine, restore: as in `synthesize`. With a short delay, ``refine``
                is done for every new frame, and None is a few iterations.
            look_ahead: None for the exact stream; or the frames of delay, 1 or more, to which a
                `restoration` adds its own.

        Yields:
            (samples,) float32 in [-1, 1], of the same kind as the chunk of mel that completed it.

        Raises:
            MelError, ValueError: as in `synthesize`; or look_ahead is out of range, or does not go
                with refine=0 or the model.
        """
        temperature = self._temperature(temperature)
        clamp, noise = Clamp(self.mel_spec, temperature), Noise(seed)
        context, render = self._renderer(noise, temperature)

        def checked() -> Iterator[tuple[Array, Tensor]]:
            for chunk in mel_chunks:
                if chunk.ndim != 2:
                    raise ValueError(f"stream takes chunks (n_mels, frames), got {chunk.ndim}-D")
                if chunk.shape[1]:
                    frames = self._checked(chunk).detach()  # a gradient's history would grow
                    clamp.expect(frames)
                    yield chunk, frames

        chunks, (restorer, strength) = checked(), self._restorer(restore)
        if restorer is not None:
            chunks = restorer.stream(chunks, None, noise, strength)
        if look_ahead is None:
            made = self._exactly(chunks, context, render, self._refiner(refine))
        else:
            self._check_look_ahead(look_ahead)
            from vocoder.backends.look_ahead import short_delay  # numba takes a second to import

            made = short_delay(chunks, self.mel_spec, context[0], render, refine, look_ahead)
        for chunk, audio in made:
            if len(audio := clamp(audio)):
                yield _like(chunk, audio)
        clamp.finish()

    def _exactly(
        self, chunks: Iterable[tuple[T, Tensor]], context: Any, render: Renderer, refiner: Any
    ) -> Iterator[tuple[T, Tensor]]:
        hop = self.mel_spec.hop_length
        pieces = (((tag, frames), frames.unsqueeze(0)) for tag, frames in chunks)
        for (tag, frames), made, final in in_windows(pieces, context, render, hop):
            audio = made[0].float()
            if refiner is not None:
                if final:  # with centred frames, the last one again, as in `refine_target`
                    frames = frames[:, -1:] if self.mel_spec.center else frames[:, :0]
                refined = refiner.push(audio.cpu().numpy(), frames.cpu().numpy())
                rest = refiner.finish() if final else refined[:0]
                audio = torch.from_numpy(np.concatenate([refined, rest]))
            yield tag, audio

    def look_ahead(
        self,
        refine: Refine | None = None,
        restore: float | None = None,
        look_ahead: int | None = None,
    ) -> int:
        """Frames of mel by which the output of `stream` with these arguments lags its input."""
        restorer = self._restorer(restore)[0]
        first = 0 if restorer is None else restorer.look_ahead
        if look_ahead is not None:
            return first + self._check_look_ahead(look_ahead)
        refiner = self._refiner(refine)
        return first + self.context_frames[1] + (0 if refiner is None else int(refiner.look_ahead))

    def _check_look_ahead(self, look_ahead: int) -> int:
        if self.sequential or look_ahead < 1 or look_ahead != int(look_ahead):
            raise ValueError(
                f"look_ahead is {look_ahead!r}: give 1 or more frames of delay, or leave it out, "
                "as for all models that draw sample by sample"
            )
        return look_ahead

    def refine_target(self, mel: Tensor) -> Tensor:
        """The mel to refine to: with centred frames, frames * hop samples have one frame more."""
        return torch.cat([mel, mel[..., -1:]], dim=-1) if self.mel_spec.center else mel

    def refine_audio(self, audio: Tensor, mel: Tensor, refine: Refine) -> Tensor:
        """Audio (batch, frames * hop) refined to its mel, not clipped; differentiable."""
        return self.mel_griffin_lim(audio, self.refine_target(mel), refine)

    def _restorer(self, restore: float | None) -> tuple[Any, float]:
        """What mels are restored with, or None, and how far."""
        if restore == 0 or (restore is None and self.restoration is None):
            return None, 0.0
        if self.restoration is None:
            raise ValueError(
                "the model has no restoring flow for its mels: leave restore out, or give it one "
                "with model.restored_by"
            )
        return self.restoration.to(self.device), 1.0 if restore is None else restore

    def _refined(self, audio: Tensor, mel: Tensor, refine: Refine) -> Tensor:
        if not refine or audio.device.type != "cpu":
            return self.refine_audio(audio, mel, refine) if refine else audio
        from vocoder.backends.refinement import refine_checked  # numba takes a second to import

        return refine_checked(audio, self.refine_target(mel), self.mel_spec, refine)

    def _refiner(self, refine: Refine | None) -> Any:
        levels = schedule(self.default_refine if refine is None else refine, self.mel_spec)
        if not levels:
            return None
        from vocoder.backends.refinement import RefineStream  # numba takes a second to import

        return RefineStream(self.mel_spec, levels)

    def _in_windows(self, mel: Tensor, noise: Noise, temperature: float) -> Tensor:
        """`generate`; long mels window by window with their context, so that memory is bounded."""
        if self.sequential or mel.shape[2] <= LONGEST_PASS:
            return self.generate(mel, noise, temperature)
        pieces = ((None, piece) for piece in mel.split(LONGEST_PASS, dim=2))
        made = in_windows(pieces, *self._renderer(noise, temperature), self.mel_spec.hop_length)
        return torch.cat([audio for _, audio, _ in made], dim=1)

    def _renderer(self, noise: Noise, temperature: float) -> tuple[tuple[int, int], Renderer]:
        """Frames of mel needed before and after those to render, and what renders them in turn."""
        past, ahead = self.context_frames

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            audio = self.generate(window, noise, temperature, start)
            return audio[:, (first - start) * self.mel_spec.hop_length :]

        return (past or 0, ahead), render

    def log_prob(self, audio: Array, mel: Array) -> Array:
        """log p(audio | mel) in nats, summed over the samples, or a lower bound (`likelihood`).

        It is a density of audio in [-1, 1]: dequantise recorded 16-bit audio first.

        Args:
            audio: (samples,) or (batch, samples); F * hop samples for F frames of mel. Up to one
                hop fewer are completed with zeros, as `mel` does.
            mel: (n_mels, frames) or (batch, n_mels, frames).

        Returns:
            (batch,), or a scalar for input without a batch, of the same kind as ``audio``.

        Raises:
            NotImplementedError: the model has no likelihood.
        """
        frames = self._checked(mel).to(self.dtype)
        samples, frames, batched = self._paired(audio, frames)
        result = self.log_likelihood(samples, frames)
        return _like(audio, result if batched else result[0])

    def training_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean -log p in nats per sample, a scalar, of a batch of ``audio`` and ``mel``."""
        audio = batch["audio"]
        return -self.log_likelihood(audio, batch["mel"]).mean() / audio.shape[-1]

    def fused(self, dtype: torch.dtype = torch.float32) -> Vocoder:
        """The same function in evaluation mode, in the form that is fastest to run; ValueError
        where it cannot be computed in ``dtype``.
        """
        if dtype not in self.dtypes:
            types = " or ".join(map(str, self.dtypes))
            raise ValueError(f"the {self.title} computes in {types}, and dtype is {dtype!r}")
        return self.eval()

    def _checked(self, mel: Tensor | NDArray[Any]) -> Tensor:
        tensor = as_tensor(mel, "mel")
        check_mel(tensor, self.mel_spec)
        return tensor.to(device=self.device, dtype=torch.float32)

    def _paired(self, audio: Tensor | NDArray[Any], frames: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Audio (batch, F * hop) and mel (batch, n_mels, F) that belong together."""
        samples, hop = as_tensor(audio, "audio"), self.mel_spec.hop_length
        check_layout(samples)
        missing = frames.shape[-1] * hop - samples.shape[-1]
        if frames.shape[:-2] != samples.shape[:-1] or not 0 <= missing <= hop:
            raise ValueError(
                f"audio of shape {tuple(samples.shape)} does not fit a mel of shape "
                f"{tuple(frames.shape)}: give (samples,) with (n_mels, frames), or both with a "
                f"batch; {frames.shape[-1]} frames of {hop} samples are {frames.shape[-1] * hop}"
            )
        padded = F.pad(samples.to(device=self.device, dtype=frames.dtype), (0, missing))
        if samples.ndim == 1:
            return padded.unsqueeze(0), frames.unsqueeze(0), False
        return padded, frames, True


class Noise:
    """Standard normal and uniform noise as a function of (seed, absolute mel-frame index) only.

    ``seed`` is a non-negative integer, or None for one drawn from torch's global generator; for a
    batch of ``items``, one for all or a sequence with one for each (ValueError otherwise).
    """

    def __init__(self, seed: int | Sequence[int] | None, items: int | None = None) -> None:
        self.shared = items is None or not isinstance(seed, Sequence | np.ndarray)
        if seed is None:
            seed = int(torch.randint(2**62, ()).item())
        self.seeds: list[Any] = [seed] if self.shared else list(seed)  # type: ignore[arg-type]
        if not self.shared and len(self.seeds) != items:
            raise ValueError(f"seeds {self.seeds} do not fit a batch of {items} mels")
        for each in self.seeds:
            if not isinstance(each, int | np.integer) or each < 0:
                raise ValueError(f"seed is {each!r}: it must be a non-negative integer")

    def normal(self, first_frame: int, frames: int, per_frame: int) -> Tensor:
        """Standard normal, (frames, per_frame), or (items, frames, per_frame)."""
        return self._drawn(0, first_frame, frames, per_frame)

    def uniform(self, first_frame: int, frames: int, per_frame: int) -> Tensor:
        """The same, uniform on [0, 1); independent of `normal`."""
        return self._drawn(1, first_frame, frames, per_frame)

    def of_items(self, rows: Sequence[int]) -> Noise:
        """The noise of some items of the batch."""
        return self if self.shared else Noise([self.seeds[row] for row in rows], len(rows))

    def _drawn(self, kind: int, first_frame: int, frames: int, per_frame: int) -> Tensor:
        # In whole blocks, each with its own generator: any stretch is drawn without the rest.
        first, offset = divmod(first_frame, _NOISE_BLOCK)
        blocks = range(first, (first_frame + max(frames, 1) - 1) // _NOISE_BLOCK + 1)
        draw = torch.rand if kind else torch.randn

        def block(seed: Any, number: int) -> Tensor:
            state = np.random.SeedSequence([int(seed), kind, number]).generate_state(1, np.uint64)
            # torch takes signed 64-bit seeds.
            generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
            return draw(_NOISE_BLOCK, per_frame, generator=generator, dtype=torch.float)

        drawn = [
            torch.cat([block(seed, number) for number in blocks])[offset : offset + frames]
            for seed in self.seeds
        ]
        return drawn[0] if self.shared else torch.stack(drawn)


_NOISE_BLOCK = 32  # frames


def _like(original: Array, result: Tensor) -> Array:
    """``result`` as numpy if ``original`` is, else on the device of ``original``."""
    if isinstance(original, Tensor):
        return result.to(original.device)
    return result.detach().cpu().numpy()


@functools.cache
def _survive_forks() -> None:
    """From now on, forked children run PyTorch on a single thread: a fork copies the memory of the
    thread pool but not its threads, so that a child would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
