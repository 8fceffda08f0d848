"""Runs the claims about architectures of generative models, and writes docs/families.md.

    python recipes/families/study.py                    all of them, some minutes on one core
    python recipes/families/study.py coupling order     some of them
    python recipes/families/study.py --document         the document alone, from the figures

A claim is one file next to this one, with `measure(seed)`, which gives figures and a picture. The
figures are kept in docs/results/families/NAME.json, the picture in docs/pictures/families/NAME.png.
document.md holds the text: `{{path:format}}` in a section is a figure of its claim.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vocoder.atomic import write_atomic
from vocoder.evaluation.plots import save_figure

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "families"
PICTURES = ROOT / "docs" / "pictures" / "families"
TEXT = Path(__file__).with_name("document.md")
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
WIDTH = 120


def shown(figures: Any, place: str) -> str:
    """A figure by its path and format: `ring/exact:.2f`.

    A list is shown by its mean, or item by item with a format that begins with `each`.
    """
    path, _, form = place.partition(":")
    for key in path.split("/"):
        figures = figures[int(key) if isinstance(figures, list) else key]
    if form.startswith("each"):
        return ", ".join(format(value, form[4:]) for value in figures)
    value = sum(figures) / len(figures) if isinstance(figures, list) else figures
    return format(value, form).replace("%", " %")


def filled(paragraph: str, figures: Any) -> str:
    """A paragraph of document.md with its figures, wrapped."""
    if "{{" not in paragraph:
        return paragraph
    text = " ".join(paragraph.split())
    text = re.sub(r"{{(.+?)}}", lambda found: shown(figures, found[1]), text)
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def section(text: str, figures: Any = None) -> str:
    """A section of document.md, with the recorded figures of its claim or others."""
    claim = re.search(r"families/(\w+)\.png", text)
    if claim and figures is None:
        figures = json.loads((RESULTS / f"{claim[1]}.json").read_text(encoding="utf-8"))["figures"]
    return "\n\n".join(filled(paragraph, figures) for paragraph in text.split("\n\n"))


def sections() -> list[str]:
    """document.md in its parts: the introduction, then a section for each claim."""
    return re.split(r"(?m)^(?=## )", TEXT.read_text(encoding="utf-8"))


def document() -> str:
    """docs/families.md, from the recorded figures."""
    return "".join(map(section, sections()))


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
