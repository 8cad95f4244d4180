"""Directives for the state machines: ``state-diagram``, ``state-table`` and ``greeting-table``.

They show the tables that the code goes by, as they are when the documentation is built:
`katcp_tornado.connection.states.TRANSITIONS` and `katcp_tornado.protocol.greeting.GREETING`.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from drawing import draw
from sphinx.application import Sphinx

from katcp_tornado.connection.states import TRANSITIONS
from katcp_tornado.protocol.greeting import GREETING, Line


class StateDiagram(Directive):
    """The drawing."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", f'<div class="state-diagram">{draw()}</div>', format="html")]


class StateTable(Directive):
    """The same as a table: from, to, why."""

    def run(self) -> list[nodes.Node]:
        rows = [(old.name, new.name, why) for old, row in TRANSITIONS.items() for new, why in row.items()]
        return [_table(("from", "to", "when"), rows)]


class GreetingTable(Directive):
    """The stages of a greeting as a table: what each line leads to, from each stage; empty where it is ignored."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (stage.value, *(row[line].value if line in row else "" for line in Line)) for stage, row in GREETING.items()
        ]
        return [_table(("so far", *(line.value for line in Line)), rows)]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(head))
    group += nodes.thead("", _row(head, nodes.Text))
    group += nodes.tbody("", *(_row(row, nodes.Text) for row in rows))
    return nodes.table("", group)


def _row(cells: tuple[str, ...], kind: Any) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", kind(cell))) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("state-diagram", StateDiagram)
    app.add_directive("state-table", StateTable)
    app.add_directive("greeting-table", GreetingTable)
    return {"parallel_read_safe": True}
