"""What mkdocs.yml needs beyond mkdocs: pages from the whole repository, their links, equations.

The site mirrors the folders of the repository, so that links between documents work in both. A link
to what is no page (code, configurations, notices) becomes its path, or leads to the repository if
mkdocs.yml has a `repo_url`; a link to a sound becomes a player. Equations become MathML when the
site is built: nothing is loaded from other hosts. A notebook becomes a page, with its outputs.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_THIN = '<mspace width="0.167em"></mspace>'
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def sources() -> list[Path]:
    """Files of the repository that the site holds: documents, pictures and sound."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    found += (ROOT / "docs").glob("**/*.md")
    found += (ROOT / "recipes").glob("*/README.md")
    found += (ROOT / "vocoder/weights").glob("**/*.md")
    for ending in ("png", "svg", "flac", "css"):
        found += (ROOT / "docs").glob(f"**/*.{ending}")
    return sorted(found)


def notebooks() -> dict[str, Path]:
    """Page -> the notebook that it is made of."""
    found = sorted((ROOT / "docs").glob("*.ipynb"))
    return {path.relative_to(ROOT).with_suffix(".md").as_posix(): path for path in found}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Documents that mkdocs.yml does not place come last, in a section More; notebooks too."""
    documents = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("**/*.md")]
    placed = set(_leaves(config.nav))
    rest = [name for name in sorted([*documents, *notebooks()]) if name not in placed]
    if rest and config.nav is not None:
        config.nav.append({"More": rest})
    return config


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [
        leaf
        for entry in (nav.values() if isinstance(nav, dict) else nav or [])
        for leaf in _leaves(entry)
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The repository's documents in their own folders, in place of those of docs/ alone."""
    docs = Path(config.docs_dir)
    kept = [f for f in files if not f.abs_src_path or docs not in Path(f.abs_src_path).parents]
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        # The theme's own style sheets are asked for from the top.
        target = path.name if path.suffix == ".css" else None
        kept.append(
            File(name, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=target)
        )
    for name, path in notebooks().items():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        kept.append(File.generated(config, name, content=notebook_page(cells)))
    return Files(kept)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to folders lead to their README, those to sounds become players, and those to what is
    no page are resolved."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if image or not path or re.match(r"[a-z]+:", path):
            return match[0]
        full = posixpath.normpath(posixpath.join(folder, path))
        anchor = anchor and f"#{anchor}"
        for candidate in (full, f"{full}/README.md", re.sub(r"\.ipynb$", ".md", full)):
            if files.get_file_from_path(candidate):
                relative = posixpath.relpath(candidate, folder or ".")
                if candidate.endswith(".flac"):
                    # Nothing is fetched before it is played: pages hold a dozen samples.
                    player = f'<audio controls preload="none" src="{relative}"></audio>'
                    return f"{text} {player}"
                return f"[{text}]({relative}{anchor})"
        if not (ROOT / full).exists():
            return match[0]  # for mkdocs to report
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{full}{anchor})"
        plain = text.strip("`")
        return f"`{full}`" if full.endswith(plain.rstrip("/")) else f"{text} (`{full}`)"

    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(content: str, **_: Any) -> str:
    """The page with its equations as MathML."""
    pattern = r'<(div|span) class="arithmatex">(.*?)</\1>'
    return re.sub(pattern, lambda m: mathml(m[2], block=m[1] == "div"), content, flags=re.DOTALL)


def mathml(latex: str, block: bool) -> str:
    r"""MathML of an equation in HTML, between \( and \) or \[ and \].

    Raises:
        ValueError: a command is not known.
    """
    source = " ".join(html.unescape(latex).split())[2:-2].strip()
    text = re.sub(r"\\arg(?![a-z])", r"\\operatorname{arg}", source)
    if "&" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    result = convert(text, display="block" if block else "inline")
    unknown = re.search(r">(\\[a-zA-Z]+)<", result)
    if unknown:
        raise ValueError(f"hooks.py: {unknown[1]} is not known, in the equation {source}")
    # TeX's spacing: a thin space after a function's name, none around a bar.
    name = r"<mi>[a-z]{2,}</mi>"
    named = rf"({name}|<msub>{name}<m[a-z]+>[^<]*</m[a-z]+></msub>)"
    result = re.sub(rf"{named}(?=<m(?:i|sub|sup|over|frac)\b)", rf"\1{_THIN}", result)
    result = re.sub(r"<mo( [^>]*)?>&#x0007C;", r'<mo\1 lspace="0" rspace="0">&#x0007C;', result)
    label = html.escape(source, quote=True)
    result = result.replace("<math ", f'<math alttext="{label}" ', 1)
    return f'<div class="equation">{result}</div>' if block else result


def notebook_page(cells: list[dict[str, Any]]) -> str:
    """A notebook as Markdown: its text, its code, and its outputs."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join("".join(data["image/png"]).split())
                parts.append(f"![output](data:image/png;base64,{picture})")
            elif "text/html" in data:  # sound
                parts.append("".join(data["text/html"]).strip())
            elif "text" in output or "text/plain" in data:
                text = "".join(output.get("text") or data["text/plain"])
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


class Equations(griffe.Extension):
    """Docstrings with reStructuredText's equations in the form of Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Convert the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = markdown_equations(obj.docstring.value)


def markdown_equations(docstring: str) -> str:
    """A docstring with `.. math::` as $$ ... $$ and :math:`...` as $...$."""

    def block(match: re.Match[str]) -> str:
        indent, text = match[1], textwrap.dedent(match[2]).split()
        return f"{indent}$$\n{indent}{' '.join(text)}\n{indent}$$\n\n"

    pattern = r"^( *)\.\. math::(.*\n?(?:(?:\1 +.*)?\n|\1 +.*$)*)"
    docstring = re.sub(pattern, block, docstring + "\n", flags=re.MULTILINE)
    inline = re.sub(
        r":math:`([^`]*)`", lambda m: f"${' '.join(m[1].split())}$", docstring, flags=re.DOTALL
    )
    return inline.rstrip("\n")
