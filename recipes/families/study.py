"""Runs the claims about families of generative models, and writes docs/families.md.

    python recipes/families/study.py                    all of them, some minutes on one core
    python recipes/families/study.py coupling order     some of them
    python recipes/families/study.py --document         the document alone, from the figures

A claim is one file next to this one, with TITLE, EQUATIONS (objects whose docstrings hold its
equations; its own docstring comes after them), `measure(seed)`, which gives figures and a picture,
and `say(figures)`, two sentences. The figures are kept in docs/results/families/NAME.json, the
picture in docs/pictures/families/NAME.png.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import textwrap
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from vocoder.atomic import write_atomic
from vocoder.evaluation.plots import save_figure

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "families"
PICTURES = ROOT / "docs" / "pictures" / "families"
DOCUMENT = ROOT / "docs" / "families.md"
CLAIMS = (
    "change_of_variables",
    "coupling",
    "normalization",
    "alternation",
    "multi_scale",
    "objective",
    "order",
    "mixture",
    "dimension",
    "divergences",
    "discriminator",
    "ring_gan",
    "inference",
    "vae_bound",
    "vae_blur",
    "autoencoder_plain",
    "autoencoder_denoising",
    "autoencoder_disentangling",
    "latents",
)
INTRODUCTION = """
What sets families of generative models apart, shown on densities small enough to check. Every
picture and figure here comes from `python recipes/families/study.py`, which takes some minutes on
one core and gives the same figures each time, but for times; each claim is one file in
[recipes/families](../recipes/families). Flows are those of `vocoder.flows`, and the equations those
of the docstrings. Log-likelihoods are means over held-out samples, in nats.
[flows.ipynb](flows.ipynb) leads from the first of these claims to a vocoder. One family is left
out: a restricted Boltzmann machine knows its density only up to a partition function that has to
be estimated (Salakhutdinov and Murray, 2008), so its nats would not compare with those below.
"""
WIDTH = 120


def equations(documented: Any) -> list[str]:
    """The `.. math::` blocks in the docstring of a module, class or function, each on one line."""
    text = inspect.cleandoc(inspect.getdoc(documented) or "")
    blocks = re.findall(r"^\.\. math::(.*(?:\n(?:[ ]+.*)?)*)", text, re.MULTILINE)
    return [" ".join(block.split()) for block in blocks]


def prose(module: ModuleType) -> list[str]:
    """The paragraphs of a claim's docstring, without its equations."""
    paragraphs = inspect.cleandoc(module.__doc__ or "").split("\n\n")
    return [" ".join(p.split()) for p in paragraphs if not p.startswith(".. math::")]


def shown(equation: str) -> str:
    """An equation as a block of Markdown, with the macros that GitHub knows."""
    lines = textwrap.wrap(
        equation.replace(r"\operatorname", r"\mathrm"), WIDTH, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(["$$", *lines, "$$"])


def section(name: str) -> str:
    """One claim as Markdown, from its recorded figures."""
    claim: Any = import_module(name)
    figures = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = [e for item in claim.EQUATIONS for e in equations(item)] + equations(claim)
    wrapped = (
        textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)
        for text in [*prose(claim), claim.say(figures["figures"])]
    )
    *lead, result = wrapped
    link = f"[{name}.py](../recipes/families/{name}.py),\n[figures](results/families/{name}.json)"
    parts = [f"## {claim.TITLE}", *lead, *(shown(e) for e in found), result]
    return "\n\n".join([*parts, f"![{claim.TITLE}](pictures/families/{name}.png)", link])


def document() -> str:
    """docs/families.md, from the recorded figures."""
    opening = textwrap.fill(" ".join(INTRODUCTION.split()), WIDTH, break_on_hyphens=False)
    parts = ["# Families of generative models", opening, *(section(name) for name in CLAIMS)]
    return "\n\n".join(parts) + "\n"


def run(name: str, seed: int, results: Path = RESULTS, pictures: Path = PICTURES) -> dict[str, Any]:
    """Measure one claim, and write its figures and its picture."""
    torch.manual_seed(seed)
    figures, picture = import_module(name).measure(seed)
    for folder in (results, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"seed": seed, "figures": figures}, indent=2, ensure_ascii=False)
    write_atomic(results / f"{name}.json", f"{content}\n".encode())
    save_figure(picture, pictures / f"{name}.png", dpi=80)
    return {"seed": seed, "figures": figures}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(CLAIMS)}")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--document", action="store_true", help="measure nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.claims) - set(CLAIMS))
    if unknown:
        parser.error(f"there is no claim {unknown[0]}; the claims are {', '.join(CLAIMS)}")
    torch.set_num_threads(1)  # sums are then rounded alike everywhere
    for name in [] if options.document else options.claims or CLAIMS:
        start = time.process_time()
        run(name, options.seed)
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    write_atomic(DOCUMENT, document().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
