"""The frame engine: the same audio as piece by piece, made in pieces of any size."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vocoder
from vocoder.audio import MelSpec
from vocoder.engines.frame import FramePlan, FrameStream
from vocoder.models import MdctFlow, Noise, WaveGlow, WaveNet

SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
)
SIZES: dict[str, Any] = {
    "n_flows": 3,
    "channels": 8,
    "n_layers": 2,
    "scale_channels": 5,
    "split": "channels",
    "conv1x1_init": ["rotation"],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "channels": {"n_layers": 3},
    "one step of one layer": {"n_flows": 1, "n_layers": 1},
    "scale reaches farther": {"n_flows": 1, "n_layers": 1, "scale_kernel_size": 9},
    "five taps": {"kernel_size": 5, "weight_norm": False},
    "one tap": {"kernel_size": 1},
    "causal": {"look_ahead": 0},
    "short look-ahead": {"look_ahead": 2, "n_layers": 3},
    "bounded log-scales": {"log_scale_bound": 0.1},
    "frames": {"split": "frames", "n_layers": 3},
    "frames, an even number of steps": {"split": "frames", "n_flows": 4},
    "frames, scale reaches farther": {
        "split": "frames",
        "n_flows": 1,
        "n_layers": 1,
        "scale_kernel_size": 9,
    },
    "frames, five taps": {"split": "frames", "kernel_size": 5},
    "frames, causal": {"split": "frames", "look_ahead": 0},
}


def build(name: str) -> MdctFlow:
    """A small flow whose every parameter has moved off its start."""
    torch.manual_seed(2)
    model = MdctFlow(mel_spec=SPEC, **(SIZES | VARIANTS[name]))
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def random_mel(frames: int, batch: int | None = None) -> Tensor:
    shape = (SPEC.n_mels, frames) if batch is None else (batch, SPEC.n_mels, frames)
    return -4 + 2 * torch.rand(shape, generator=torch.Generator().manual_seed(frames))


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> MdctFlow:
    return build(request.param)


def reference(model: MdctFlow, mel: Tensor, seed: int = 0) -> Tensor:
    """Piece by piece, by the bijections themselves."""
    noise = model.draw(Noise(seed), 0, mel.shape[-1]).expand(len(mel), -1, -1)
    with torch.no_grad():
        return model.sample(mel, noise, 0.7).clamp(-1, 1)


@pytest.mark.parametrize("frames", [1, 2, 5, 40, 90])
def test_equals_the_flow_piece_by_piece(model: MdctFlow, frames: int) -> None:
    fused = model.fused()
    for batch in (1, 3):
        mel = random_mel(frames, batch)
        made = fused.synthesize(mel, temperature=0.7)
        assert (made - reference(model, mel)).abs().max() < 1e-5


@pytest.mark.parametrize("rows", [1, 10**6])
def test_the_pieces_do_not_matter(
    model: MdctFlow, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it whether minimal filtering makes them, or plain products."""
    mel, fused = random_mel(90, 2), model.fused()
    monkeypatch.setattr("vocoder.engines.frame.stream._MINIMAL_ROWS", rows)
    monkeypatch.setattr("vocoder.engines.frame.stream.MIN_TILE_FRAMES", 1)
    for tile in (2, 64, 120):
        monkeypatch.setattr("vocoder.engines.frame.stream.TILE", tile)
        made = fused.synthesize(mel, temperature=0.7)
        assert (made - reference(model, mel)).abs().max() < 1e-5


@pytest.mark.parametrize("sizes", [[1] * 60, [60], [0, 25, 0, 3, 32], [7] * 8 + [4]])
def test_streaming_equals_one_pass(model: MdctFlow, sizes: list[int]) -> None:
    mel = random_mel(60)
    given = made = 0
    chunks = []

    def feed() -> Any:
        nonlocal given
        for chunk in mel.split(sizes, dim=1):
            given += chunk.shape[1]
            if chunk.shape[1]:
                yield chunk

    for chunk in model.fused().stream(feed(), temperature=0.7):
        chunks.append(chunk)
        made += len(chunk) // SPEC.hop_length
        # All that the look-ahead allows comes out at once.
        assert made == (60 if given == 60 and made == 60 else given - model.context_frames[1])
    assert (torch.cat(chunks) - reference(model, mel[None])[0]).abs().max() < 1e-5


def test_the_look_ahead_is_what_is_reported(model: MdctFlow) -> None:
    """What comes later, and whether anything comes, changes nothing before the look-ahead."""
    _, ahead = model.context_frames
    model = model.double()  # in which rounding is far below any true change
    for parameter in model.parameters():  # far frames tell by small differences
        parameter.data.add_(0.15 * torch.randn_like(parameter))
    cut, frames = ahead + 8, ahead + 16
    mel = random_mel(frames, 1).double()
    z = model.latents(model.draw(Noise(0), 0, frames), 0.7)
    with torch.no_grad():
        whole = model.inverse(z, mel).reshape(frames, -1)[:cut]
        short = model.inverse(z[..., :cut], mel[..., :cut]).reshape(cut, -1)
    moved = (whole - short).abs().amax(dim=1) > 1e-12
    # Where frames go in pairs, it depends on which of the two it is.
    first = int(moved.nonzero()[0])
    assert first == cut - ahead if model.frame_alignment == 1 else first >= cut - ahead


def test_a_short_look_ahead_is_short() -> None:
    # Three steps look 6 frames back each; the band scale looks 2 ahead, the transform one.
    assert build("causal").context_frames == (19, 3)
    # Of 14 taps back and ahead, 2 lie ahead in each of three steps.
    assert build("short look-ahead").context_frames == (3 * 12 + 1, 3 * 2 + 1)


def test_both_directions_agree_with_a_short_look_ahead() -> None:
    model = build("short look-ahead").double()
    audio, mel = 0.1 * torch.randn(2, 40 * SPEC.hop_length).double(), random_mel(40, 2).double()
    z, _ = model.forward(audio, mel)
    assert (model.inverse(z, mel) - audio).abs().max() < 1e-9


def test_a_stream_keeps_only_its_state() -> None:
    plan = FramePlan(build("channels").fused().flow, SPEC.n_mels)
    stream = FrameStream(plan, 1, lambda first, count: torch.zeros(1, 16, count))

    def size() -> int:
        held = [*stream._values, *stream._work, stream._seen, stream._exact]
        return sum(t.numel() for t in [*held, *(stream._waiting or ())])

    mel = random_mel(20, 1)
    stream.push(mel, False)
    stream.push(mel, False)
    before = size()
    for _ in range(20):
        stream.push(mel, False)
    assert size() == before


def test_inference_mode_may_come_and_go() -> None:
    model = build("channels").fused()
    mel = random_mel(60)
    with torch.inference_mode():
        made = model.synthesize(mel)
        stream = model.stream(iter(mel.split(30, dim=1)))
        first = next(stream)
    assert torch.equal(model.synthesize(mel), made)
    assert (torch.cat([first, *stream]) - made).abs().max() < 1e-5


def test_copies_and_pickles_are_complete_and_independent() -> None:
    model = build("channels").fused()
    mel = random_mel(20, 1)
    expected = model.synthesize(mel)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.frozen
        assert torch.equal(copied.synthesize(mel), expected)
        copied._plan.dct.zero_()
        assert not torch.equal(copied.synthesize(mel), expected)
        assert torch.equal(model.synthesize(mel), expected)


def test_threads_and_interleaved_streams_do_not_disturb_each_other() -> None:
    model = build("channels").fused()
    mels = [random_mel(80 + number) for number in range(4)]
    expected = [model.synthesize(mel) for mel in mels]
    made: dict[int, Tensor] = {}

    def work(number: int) -> None:
        for _ in range(5):
            made[number] = model.synthesize(mels[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert torch.equal(made[number], expected[number])
    mel = random_mel(80)
    streams = [model.stream(iter(mel.split(9, dim=1)), seed=seed) for seed in (1, 2)]
    chunks: list[list[Tensor]] = [[], []]
    for pair in zip(*streams, strict=True):
        for own, chunk in zip(chunks, pair, strict=True):
            own.append(chunk)
    for seed, own in enumerate(chunks, 1):
        assert (torch.cat(own) - model.synthesize(mel, seed=seed)).abs().max() < 1e-5


def test_gradients_and_other_types_go_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("folded")

    model = build("channels").fused()
    monkeypatch.setattr("vocoder.models.mdct_flow.run", refuse)
    mel = random_mel(12, 1)
    with pytest.raises(AssertionError, match="folded"):
        model.synthesize(mel)
    mel.requires_grad_()
    model.generate(mel, Noise(0), 0.7).square().sum().backward()
    assert mel.grad is not None
    assert mel.grad.abs().max() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.synthesize(mel.detach())
    model.double().synthesize(mel.detach())


def test_bfloat16_is_close_and_the_rest_stays_exact(tmp_path: Path) -> None:
    model = build("channels")
    rough = model.fused(torch.bfloat16)
    mel = random_mel(60)
    exact, made = model.fused().synthesize(mel), rough.synthesize(mel)
    assert made.dtype == torch.float32
    error = (made - exact).square().sum() / exact.square().sum()
    assert 1e-8 < error < 1e-3  # 8 bits of mantissa are about 50 dB
    streamed = torch.cat(list(rough.stream(mel.split(7, dim=1))))
    assert (streamed - exact).square().sum() / exact.square().sum() < 1e-3
    audio = 0.1 * torch.randn(60 * SPEC.hop_length)
    assert torch.allclose(model.log_prob(audio, mel), rough.log_prob(audio, mel))
    assert all(parameter.dtype == torch.float32 for parameter in rough.parameters())
    loaded = vocoder.load(model.save(tmp_path / "model"), dtype=torch.bfloat16)
    assert torch.equal(loaded.synthesize(mel), made)


def test_types_that_a_model_does_not_compute_in_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.bfloat16"):
        build("channels").fused(torch.float16)
    with pytest.raises(ValueError, match="WaveGlow computes in float32 only"):
        WaveGlow(mel_spec=SPEC, n_flows=1, channels=4, n_layers=1).fused(torch.bfloat16)
    with pytest.raises(ValueError, match="WaveNet computes in float32 only"):
        WaveNet(mel_spec=SPEC, channels=4, n_layers=2, cycle=2).fused(torch.bfloat16)
