"""Directives for the architecture: ``floors`` draws the folders on their floors, ``rooms`` lists the modules.

Both are made from the code, as it is when the documentation is built: the floors from the contract that import-linter
checks (pyproject.toml), the arrows from the imports, the descriptions from the modules' own docstrings.
"""

from __future__ import annotations

import ast
import re
from html import escape
from pathlib import Path
from typing import Any

import tomllib
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import katcp_tornado

PACKAGE = Path(katcp_tornado.__file__).parent
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

#: What a room that stands on the client imports from: ``from .. import Client``.
PUBLIC = "the public names"

WIDTH, FLOOR, GAP, MARGIN, BOX_HEIGHT = 760, 74, 16, 10, 46
STYLE = """
.floors text { font: 14px sans-serif; fill: currentColor; text-anchor: middle; }
.floors text.room { font-weight: bold; }
.floors text.note { font-size: 12px; opacity: 0.75; }
.floors rect { fill: #3b82c4; fill-opacity: 0.14; stroke: #3b82c4; stroke-width: 1.2; }
"""


def floors() -> list[list[str]]:
    """The floors from top to bottom, each a list of rooms: what import-linter holds, without what is not there."""
    contracts = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [[name.strip(" ()") for name in layer.split(":")] for layer in layers]
    return [row for row in ([name for name in row if modules(name)] for row in rows) if row]


def modules(room: str) -> list[Path]:
    """The files of a room: a module, or the modules of a folder."""
    if (PACKAGE / f"{room}.py").exists():
        return [PACKAGE / f"{room}.py"]
    return sorted((PACKAGE / room).rglob("*.py"))


def summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.sub(r"\s+", " ", docstring.split("\n\n")[0]).replace("``", "").replace("`", "")


def below(room: str) -> list[str]:
    """The other rooms that a room imports from at run time."""
    found = set()
    for path in modules(room):
        depth = len(path.relative_to(PACKAGE).parts)
        for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == depth:
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                found.update(name if modules(name) else PUBLIC for name in names)
    return sorted(found - {room})


def runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those that only a type checker reads."""
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"):
            found += [node, *runtime_nodes(node)]
    return found


def draw() -> str:
    """The floors as SVG: a row for each, a box for each room, and below its name what it imports from."""
    rows = floors()
    height = len(rows) * FLOOR + MARGIN
    parts = [f'<svg class="floors" viewBox="0 0 {WIDTH} {height}"><title>Floors</title><style>{STYLE}</style>']
    for level, row in enumerate(rows):
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        top = MARGIN + level * FLOOR
        for place, room in enumerate(row):
            left = MARGIN + place * (width + GAP)
            middle = left + width / 2
            folder = "/" if (PACKAGE / room).is_dir() else ".py"
            imports = "imports from: " + (", ".join(below(room)) or "nothing of the library")
            parts.append(f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{BOX_HEIGHT}" rx="5"/>')
            parts.append(f'<text class="room" x="{middle:g}" y="{top + 19}">{escape(room + folder)}</text>')
            if 6.1 * len(imports) < width:
                parts.append(f'<text class="note" x="{middle:g}" y="{top + 37}">{escape(imports)}</text>')
    return "".join([*parts, "</svg>"])


class Floors(Directive):
    """The drawing."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", draw(), format="html")]


class Rooms(Directive):
    """A definition list for each room: its modules, and what each says of itself."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for room in (room for row in floors() for room in row):
            folder = (PACKAGE / room).is_dir()
            paths = modules(room)
            found.append(nodes.rubric("", room + ("/" if folder else ".py")))
            listed = nodes.definition_list()
            for path in paths:
                name = path.relative_to(PACKAGE / room).as_posix() if folder else path.name
                term = nodes.term("", "", nodes.literal("", name))
                listed += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", summary(path))))
            found.append(listed)
        return found


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("floors", Floors)
    app.add_directive("rooms", Rooms)
    return {"parallel_read_safe": True}
