"""Directives for the states of a client: ``state-diagram`` and ``state-table``.

Both show `katcp_tornado.states.TRANSITIONS` as it is when the documentation is built.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from drawing import draw
from sphinx.application import Sphinx

from katcp_tornado.states import TRANSITIONS


class StateDiagram(Directive):
    """The drawing."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", f'<div class="state-diagram">{draw()}</div>', format="html")]


class StateTable(Directive):
    """The same as a table: from, to, why."""

    def run(self) -> list[nodes.Node]:
        rows = [(old.name, new.name, why) for old, row in TRANSITIONS.items() for new, why in row.items()]
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (20, 20, 60)), cols=3)
        group += nodes.thead("", _row(("from", "to", "when"), nodes.Text))
        group += nodes.tbody("", *(_row(row, nodes.Text) for row in rows))
        return [nodes.table("", group)]


def _row(cells: tuple[str, ...], kind: Any) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", kind(cell))) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("state-diagram", StateDiagram)
    app.add_directive("state-table", StateTable)
    return {"parallel_read_safe": True}
