"""Taking weight normalisation out of trained weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# (gain, direction) as torch names them: its first weight_norm, and the present parametrisation.
_PAIRS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def fuse_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""A state dict with every weight-normalised pair replaced by the weight it stands for.

    .. math:: w = g \, v / \lVert v \rVert

    with the norm over all axes but the first. Paper: Salimans and Kingma, 2016.

    Raises:
        ValueError: half of a pair is missing.
    """
    result = dict(state)
    for gain_name, direction_name in _PAIRS:
        for name in [n for n in result if n.endswith("." + gain_name)]:
            stem = name[: -len(gain_name)]
            if stem + direction_name not in result:
                raise ValueError(f"{name} is there and {stem}{direction_name} is not")
            gain, direction = result.pop(name), result.pop(stem + direction_name)
            norm = direction.flatten(1).norm(dim=1).reshape(gain.shape)
            result[stem + "weight"] = gain * direction / norm
    return result
