"""Every invertible piece under one contract, against autograd, in float64, parameters perturbed."""

import math

import pytest
import torch
from torch import Tensor, nn

from vocoder.flows import (
    ActNorm,
    AffineCoupling,
    AlternatingFrames,
    Bijection,
    Chain,
    ChannelHalves,
    ConditionalScale,
    FactorOut,
    InvertibleConv1x1,
    Mdct,
    Squeeze,
)
from vocoder.nn import GatedConvStack, SourceFilter

pytestmark = pytest.mark.usefixtures("double_precision")

CHANNELS, TIME, CONDITION = 4, 6, 7


def stack(n_in, n_out, **options):
    sizes = {"channels": 3, "n_layers": 2} | options
    return GatedConvStack(n_in, n_out, CONDITION, **sizes)


def halved(n_in, n_out):
    """A conditioner for `AlternatingFrames`, which shows it the condition of two steps."""
    return GatedConvStack(n_in, n_out, 2 * CONDITION, channels=3, n_layers=2)


class Dense(nn.Module):
    """A conditioner that is no convolution, to show that couplings take any network."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = nn.Conv1d(n_in + CONDITION, n_out, 1)

    def forward(self, x, condition):
        return torch.tanh(self.layer(torch.cat([x, condition], dim=1)))


def small_model():
    """A whole conditioned flow with early outputs, from a waveform of 24 samples."""

    def step(channels):
        half = channels // 2
        return [
            ActNorm(channels),
            InvertibleConv1x1(channels),
            AffineCoupling(stack(half, 2 * (channels - half))),
        ]

    rest = Chain([*step(2), InvertibleConv1x1(2)])
    return Chain([Squeeze(4), *step(4), FactorOut(2, rest)])


def fused_conv1x1():
    piece = perturbed(InvertibleConv1x1(CHANNELS))
    assert isinstance(piece, InvertibleConv1x1)
    return piece.fused()


# name -> a piece of `CHANNELS` and `TIME`, or of the sizes below
PIECES = {
    "squeeze": lambda: Squeeze(3),
    "mdct": lambda: Mdct(4),
    "mdct one block": lambda: Mdct(4),
    "conv1x1": lambda: InvertibleConv1x1(CHANNELS),
    "conv1x1 even-odd": lambda: InvertibleConv1x1(5, "even-odd"),
    "conv1x1 fused": fused_conv1x1,
    "actnorm": lambda: ActNorm(CHANNELS),
    "affine": lambda: AffineCoupling(stack(2, 4)),
    "affine odd channels": lambda: AffineCoupling(stack(2, 6)),
    "affine swapped": lambda: AffineCoupling(Dense(3, 4), ChannelHalves(swap=True)),
    "affine bounded": lambda: AffineCoupling(stack(2, 4), log_scale_bound=0.5),
    "affine frames": lambda: AffineCoupling(halved(4, 8), AlternatingFrames()),
    "affine frames odd": lambda: AffineCoupling(halved(4, 8), AlternatingFrames()),
    "affine odd frames": lambda: AffineCoupling(halved(4, 8), AlternatingFrames(1)),
    "conditional scale": lambda: ConditionalScale(nn.Conv1d(CONDITION, CHANNELS, 3, padding=1)),
    # Of the condition, the network sees 3 channels; E and Q of 2 bands come last.
    "source filter": lambda: SourceFilter(2, 3, sample_rate=16000, channels=4),
    "factor out": lambda: FactorOut(1, AffineCoupling(stack(1, 4))),
    "whole model": small_model,
}
# name -> channels and time of its input, where they are others
SIZES = {
    "squeeze": (2, 6), "mdct": (1, 24), "mdct one block": (1, 4), "conv1x1 even-odd": (5, TIME),
    "affine odd channels": (5, TIME), "affine swapped": (5, TIME),
    "affine frames odd": (CHANNELS, 5), "affine odd frames": (CHANNELS, 5),
    "source filter": (2, TIME), "whole model": (1, 24),
}  # fmt: skip


def perturbed(piece):
    """In evaluation mode, every parameter moved off its start."""
    for parameter in piece.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    for module in piece.modules():
        if isinstance(module, ActNorm):
            module.initialized.fill_(True)
    return piece.eval()


WITH_PARAMETERS = [n for n in PIECES if any(p.requires_grad for p in PIECES[n]().parameters())]

Case = tuple[Bijection, Tensor, Tensor]


def piece_and_inputs(name):
    piece, (channels, time) = perturbed(PIECES[name]()), SIZES.get(name, (CHANNELS, TIME))
    x = torch.randn(2, channels, time)
    condition_time = time // 4 if name == "whole model" else time
    return piece, x, torch.rand(2, CONDITION, condition_time)  # as a voicing, from 0 to 1


@pytest.fixture(params=PIECES)
def case(request):
    return piece_and_inputs(request.param)


def test_inverse_undoes_forward(case):
    piece, x, condition = case
    z, _ = piece(x, condition)
    assert not torch.equal(z.flatten(), x.flatten())
    assert (piece.inverse(z, condition) - x).abs().max() < 1e-10
    # and without gradients, when inverses are computed in float64
    with torch.no_grad():
        assert (piece.inverse(z, condition) - x).abs().max() < 1e-10


def test_log_det_is_that_of_the_jacobian(case):
    piece, x, condition = case
    _, log_det = piece(x, condition)
    assert log_det.shape == (x.shape[0],)
    for item in range(x.shape[0]):

        def one(value, item=item):
            return piece(value.unsqueeze(0), condition[item : item + 1])[0].flatten()

        jacobian = torch.autograd.functional.jacobian(one, x[item]).reshape(x[0].numel(), -1)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert (log_det[item] - expected).abs() < 1e-9


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_gradient_reaches_every_parameter_both_ways(name):
    piece, x, condition = piece_and_inputs(name)
    z, _ = piece(x, condition)
    objectives = {
        "forward": lambda: sum(part.square().sum() for part in piece(x, condition)),
        "inverse": lambda: piece.inverse(z.detach(), condition).square().sum(),
    }
    names = [name for name, _ in piece.named_parameters()]
    for direction, objective in objectives.items():
        parameters = list(piece.parameters())
        gradients = torch.autograd.grad(objective(), parameters, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            assert gradient is not None, f"{direction}: {name} is not reached"
            assert gradient.abs().max() > 0, f"{direction}: {name} has no gradient"


def test_gradcheck(case):
    piece, x, condition = case
    x, condition = x[:1].requires_grad_(), condition[:1].requires_grad_()
    assert torch.autograd.gradcheck(piece, (x, condition))
    assert torch.autograd.gradcheck(piece.inverse, (piece(x, condition)[0].detach(), condition))


def test_density_integrates_to_one():
    """p(x) of a two-dimensional flow, summed over a grid that holds all of its mass."""
    couplings = [AffineCoupling(stack(1, 2), log_scale_bound=1.0) for _ in range(2)]
    mixings = [InvertibleConv1x1(2) for _ in range(2)]
    flow = perturbed(Chain([ActNorm(2), mixings[0], couplings[0], mixings[1], couplings[1]]))
    condition = torch.ones(1, CONDITION, 1)
    with torch.no_grad():
        samples = flow.inverse(torch.randn(10_000, 2, 1), condition.expand(10_000, -1, -1))
        low, high = samples.amin(dim=0) - 3, samples.amax(dim=0) + 3  # (2, 1)
        axes = [torch.linspace(float(low[i]), float(high[i]), 400) for i in range(2)]
        points = torch.cartesian_prod(*axes).unsqueeze(-1)  # (points, 2, 1)
        z, log_det = flow(points, condition.expand(points.shape[0], -1, -1))
        log_p = log_det - 0.5 * z.square().sum(dim=(1, 2)) - math.log(2 * math.pi)
        total = log_p.exp().sum() * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert abs(total - 1) < 1e-3


def test_a_fused_conv1x1_is_frozen():
    piece = perturbed(InvertibleConv1x1(4))
    assert isinstance(piece, InvertibleConv1x1)
    fused, x = piece.fused(), torch.randn(1, 4, 5)
    torch.testing.assert_close(fused(x), piece(x))
    torch.testing.assert_close(fused.inverse(x), piece.inverse(x))
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert list(fused.state_dict()) == list(piece.state_dict()) == ["weight"]
    before = fused(x)[0]
    piece.weight.data.add_(1)
    assert torch.equal(fused(x)[0], before)
    assert fused.float()(x.float())[0].dtype == torch.float32


def test_actnorm_normalises_its_first_training_batch_only():
    piece = ActNorm(3)
    x = 5 + 3 * torch.randn(4, 3, 50)
    z, _ = piece(x)
    assert z.mean(dim=(0, 2)).abs().max() < 1e-10
    assert (z.std(dim=(0, 2), correction=0) - 1).abs().max() < 1e-10
    before = piece.shift.clone()
    piece(10 * x)
    assert torch.equal(piece.shift, before)
    fresh = ActNorm(3)
    fresh.load_state_dict(piece.state_dict())
    fresh(10 * x)
    assert torch.equal(fresh.shift, before)


def test_mdct_is_orthogonal_and_compacts_a_tone():
    mdct = Mdct(32)
    x = torch.randn(1, 1, 32 * 9)
    z, _ = mdct(x)
    assert (z.square().sum() - x.square().sum()).abs() < 1e-9
    # A tone in the middle of band 10 stays within a band of it: sine-window side lobes are low.
    tone = torch.sin(math.pi * (10.5 / 32) * torch.arange(32 * 9) + 0.3).reshape(1, 1, -1)
    energy = mdct(tone)[0][0, :, 2:-2].square().sum(dim=1)
    assert energy[9:12].sum() / energy.sum() > 0.98
    # In float32 it inverts to rounding.
    single = Mdct(256).float()
    x = torch.randn(1, 1, 256 * 20, dtype=torch.float32)
    assert (single.inverse(single(x)[0]) - x).abs().max() < 5e-6


def test_log_det_is_float32_under_autocast():
    torch.set_default_dtype(torch.float32)
    for name in PIECES:
        piece, x, condition = piece_and_inputs(name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z, log_det = piece.float()(x, condition)
        assert log_det.dtype == torch.float32
        assert z.dtype == torch.float32


@pytest.mark.parametrize("kind", ["rotation", "even-odd", "half-swap", "identity"])
def test_initial_matrices_are_orthogonal(kind):
    matrix = InvertibleConv1x1(6, kind).weight.detach()
    assert (matrix @ matrix.T - torch.eye(6)).abs().max() < 1e-12
    if kind == "rotation":
        assert torch.det(matrix) > 0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Mdct(5), "even number of bands"),
        (lambda: Mdct(4)(torch.zeros(1, 1, 6)), "whole number of blocks"),
        (lambda: Squeeze(4)(torch.zeros(1, 1, 6)), "whole number of blocks"),
    ],
)
def test_bad_sizes_are_refused_in_one_sentence(build, words):
    with pytest.raises(ValueError, match=words):
        build()
