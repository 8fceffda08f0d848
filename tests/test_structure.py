"""Imports in the package only go down its layers, and never in a circle."""

import ast
from graphlib import TopologicalSorter

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "vocoder"

LAYERS = [
    ["atomic", "devices", "extras"],
    ["audio", "flows", "checkpoints"],
    ["nn", "corpus", "hub"],
    ["backends"],
    ["models"],
    ["text", "export"],
    ["evaluation", "pretrained"],
    ["training", "demo", "bulk", "serve"],
    ["cli"],
    ["__main__"],
]
"""From the lowest up; what shares a layer does not import each other."""

LAYER = {name: height for height, names in enumerate(LAYERS) for name in names}


def imports(file):
    """Modules of the package that a file imports anywhere, for type checking too."""
    found = set()
    here = ("vocoder", *file.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            inner = [f"{module}.{alias.name}" for alias in node.names]
            found.update(name if path_of(name) else module for name in inner)
    return {name for name in found if name.startswith("vocoder.")}


def path_of(module):
    """The file of a module, None if it is not one."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    places = path.with_suffix(".py"), path / "__init__.py"
    return next((place for place in places if place.is_file()), None)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(file):
    package = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(file):
        other = module.split(".")[1]
        assert other == package or LAYER[other] < LAYER[package], f"{file} imports {module}"


def test_there_is_no_circle():
    graph = {
        file: {path for module in imports(file) if (path := path_of(module)) and path != file}
        for file in FILES
    }
    # Files may import each other through their package, whose __init__ only gathers names.
    for file, needed in graph.items():
        needed -= {file.with_name("__init__.py")}
    TopologicalSorter(graph).prepare()


def test_every_module_states_its_scope():
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file
