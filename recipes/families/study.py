"""Runs the claims about architectures of generative models, and updates docs/families.md.

    python recipes/families/study.py                    all of them, some minutes on one core
    python recipes/families/study.py coupling order     some of them
    python recipes/families/study.py --document         the document alone, from the figures

A claim is a function `NAME(seed)` of a module next to this one, called without gradients, which
returns its figures and a picture. They are kept in docs/results/families/NAME.json and
docs/pictures/families/NAME.png. In the document, every figure precedes its path and format:
`-1.26<!--ring/exact:.2f-->`.
"""

import argparse
import json
import re
import sys
import textwrap
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib
import torch

from vocoder.atomic import write_atomic

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "families"
PICTURES = ROOT / "docs" / "pictures" / "families"
DOCUMENT = ROOT / "docs" / "families.md"
CLAIMS = dict(
    re.findall(
        r"pictures/families/(\w+)\.png.*?recipes/families/(\w+)\.py",
        DOCUMENT.read_text(encoding="utf-8"),
        re.DOTALL,
    )
)
"""The claims in the document's order, and the module of each."""
_NUMBER = r"-?\d(?:[\d.,]*\d)?(?:e-?\d+)?(?: %)?"
FIGURE = re.compile(rf"{_NUMBER}(?:(?:, {_NUMBER})*(?=<!--[^>]*:each))?<!--(.+?)-->")


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


def updated(section: str, figures: Any) -> str:
    """A section of the document with these figures; paragraphs with figures are wrapped anew."""
    paragraphs = section.split("\n\n")
    for index, paragraph in enumerate(paragraphs):
        if "<!--" in paragraph:
            text = " ".join(paragraph.split())
            text = FIGURE.sub(lambda m: f"{shown(figures, m[1])}<!--{m[1]}-->", text)
            wrapped = textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)
            paragraphs[index] = wrapped
    return "\n\n".join(paragraphs)


def sections() -> list[str]:
    """The document in its parts: the introduction, then a section for each claim."""
    return re.split(r"(?m)^(?=## )", DOCUMENT.read_text(encoding="utf-8"))


def document() -> str:
    """docs/families.md with the recorded figures."""
    introduction, *parts = sections()
    for index, part in enumerate(parts):
        claim = re.findall(r"families/(\w+)\.png", part)[0]
        recorded = json.loads((RESULTS / f"{claim}.json").read_text(encoding="utf-8"))
        parts[index] = updated(part, recorded["figures"])
    return introduction + "".join(parts)


def run(claim: str, seed: int, results: Path = RESULTS, pictures: Path = PICTURES) -> Any:
    """Measure one claim, write its figures and its picture; returns the figures."""
    torch.manual_seed(seed)
    style = {"axes.titlesize": "small", "legend.fontsize": "small"}
    with torch.no_grad(), matplotlib.rc_context(style):
        figures, picture = getattr(import_module(CLAIMS[claim]), claim)(seed)
        picture.savefig(pictures / f"{claim}.png", dpi=80)
    content = json.dumps({"seed": seed, "figures": figures}, indent=2, ensure_ascii=False)
    write_atomic(results / f"{claim}.json", f"{content}\n".encode())
    return figures


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(CLAIMS)}")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--document", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if unknown := set(options.claims) - set(CLAIMS):
        parser.error(f"there is no claim {min(unknown)}; the claims are {', '.join(CLAIMS)}")
    torch.set_num_threads(1)  # sums are then rounded alike everywhere
    for claim in [] if options.document else options.claims or CLAIMS:
        start = time.process_time()
        run(claim, options.seed)
        print(f"{claim}: {time.process_time() - start:.0f} s", flush=True)
    write_atomic(DOCUMENT, document().encode())


if __name__ == "__main__":
    sys.exit(main())
