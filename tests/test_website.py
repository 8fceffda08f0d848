"""The documentation site builds without a warning, holds all pages, and needs no other host."""

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, scripts

NEEDED = ("latex2mathml", "material", "mkdocs", "mkdocstrings")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install '.[docs]')"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def website():
    with scripts("docs/website") as script:
        yield script("hooks")


def test_every_document_is_a_page_in_the_navigation_and_loads_from_no_other_host(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")]:
        name = page.relative_to(ROOT).with_suffix(".html").as_posix()
        assert (site / name).is_file(), name
        assert f'href="{name}"' in home, f"{name} is not in the navigation"
    kept = {path.suffix for path in (site / "docs").rglob("*") if path.is_file()}
    assert kept == {".html", ".png", ".svg", ".flac"}  # what pages show, and no scripts
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*>", page.read_text("utf-8"))
        assert loaded
        assert not [tag for tag in loaded if re.search(r'(?:src|href)="?(?:https?:)?//', tag)], page
    # Links to code and folders are resolved.
    backends = (site / "docs/backends.html").read_text(encoding="utf-8")
    assert "<code>vocoder/backends/refinement.py</code>" in backends
    # Sounds play in the page.
    for page, count in (("index.html", 3), ("docs/results.html", 10)):
        players = re.findall(
            r'<audio controls preload="none" src="([^"]+)">', (site / page).read_text("utf-8")
        )
        assert len(players) >= count
        assert all((site / page).parent.joinpath(name).is_file() for name in players)
    comparison = (site / "docs/comparison.html").read_text(encoding="utf-8")
    assert 'href="../recipes/unseen-speakers/index.html"' in comparison


def test_equations_become_mathml_and_a_docstring_keeps_what_is_around_them(website):
    docstring = "A.\n\n    .. math:: a &= b \\\\\n        c &= d\n\n    With :math:`\\sigma`.\n"
    assert website.markdown_equations(docstring) == (
        "A.\n\n    $$\n    a &= b \\\\ c &= d\n    $$\n\n    With $\\sigma$."
    )
    # An unknown command in an equation stops the build.
    assert 'alttext="x^2"' in website.mathml(r"\(x^2\)", block=False)
    with pytest.raises(ValueError, match=r"\\nosuch is not known, in the equation x \\nosuch y"):
        website.mathml(r"\(x \nosuch y\)", block=False)
