"""The contract of the terms of the loss, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from vocoder.training.step import Step


class Term(nn.Module):
    """Base class of the terms: `forward(step)` returns a scalar to minimise.

    It runs under the trainer's autocast; a term that needs float32 switches that off with
    `in_float32`.

    Args:
        weight: factor of the term in the loss.
        start: fraction of the training budget after which the term applies, in [0, 1].

    Raises:
        ValueError: weight or start out of range.
    """

    name: ClassVar[str]
    """Name in logs, train/NAME."""

    def __init__(self, weight: float = 1.0, start: float = 0.0) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(f"weight is {weight}: leave the term out, or give a number above 0")
        if not 0 <= start <= 1:
            raise ValueError(f"start is {start}: it is a fraction of the budget, from 0 to 1")
        self.weight = weight
        self.start = start

    def forward(self, step: Step) -> Tensor:
        raise NotImplementedError


class TrainedTerm(Term):
    """A term with parameters that are trained along with the model, such as a discriminator.

    The model minimises `forward`, in which the term's parameters are frozen; the term's parameters
    minimise `own_loss`, in which the sample is detached from the model. The parameters are saved
    in the checkpoint that a run resumes from, never with the model, and are not averaged.

    Args:
        weight, start: see `Term`.
        trained_from: fraction of the training budget after which the term's own parameters are
            trained, at most `start`; None for `start`. A discriminator that is trained alone for a
            while does not mislead the model with its first guesses.
        learning_rate: of the term's parameters; None for the model's. Warm-up and decay are the
            same.
        gradient_clip: greatest norm of the gradient of the term's parameters; None for the
            model's.

    Raises:
        ValueError: weight, start or trained_from out of range.
    """

    def __init__(
        self,
        weight: float = 1.0,
        start: float = 0.0,
        trained_from: float | None = None,
        learning_rate: float | None = None,
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__(weight, start)
        if trained_from is None:
            trained_from = start
        if not 0 <= trained_from <= start:
            raise ValueError(
                f"trained_from is {trained_from}: it is a fraction of the budget, from 0 to the "
                f"term's start, {start}"
            )
        self.trained_from = trained_from
        self.learning_rate = learning_rate
        self.gradient_clip = gradient_clip

    def own_loss(self, step: Step) -> Tensor:
        """The loss of the term's own parameters, a scalar."""
        raise NotImplementedError


def total_loss(terms: Iterable[Term], step: Step) -> dict[str, Tensor]:
    r"""The loss of a training step and its parts, scalars.

    .. math:: L = \sum_k w_k T_k + \sum_k O_k

    over the terms T that have started, with their weights w, and the losses O of the parameters
    that are trained already. T gives gradients to the model alone and O to the term alone, so one
    backward pass and one optimiser step train both.

    Returns:
        ``loss``, each term under its name, and each O as ``NAME_own``.
    """
    loss = step.audio.new_zeros(())
    values: dict[str, Tensor] = {}
    for term in terms:
        if step.budget_used >= term.start:
            with frozen(term):
                value = term(step)
            loss = loss + term.weight * value
            values[term.name] = value.detach()
        if isinstance(term, TrainedTerm):
            if step.budget_used >= term.trained_from:
                own = term.own_loss(step.detached())
                loss = loss + own
                values[f"{term.name}_own"] = own.detach()
            else:
                # DistributedDataParallel waits for every parameter in every step.
                loss = loss + sum(0 * parameter.sum() for parameter in term.parameters())
    return {"loss": loss, **values}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Context in which the module's parameters take no gradient."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def in_float32(tensor: Tensor) -> torch.autocast:
    """Context without autocast on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)
