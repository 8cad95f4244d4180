"""The directive ``command-help``: what a command says of itself."""

from __future__ import annotations

from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from katcp_tornado.cli.commands import katcp_tornado


class CommandHelp(Directive):
    """The text of ``katcp-tornado COMMAND --help``; without an argument that of ``katcp-tornado --help``."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        command: click.Command = katcp_tornado
        options = {**command.context_settings, "terminal_width": 80}
        context = click.Context(command, info_name="katcp-tornado", **options)
        for name in self.arguments:
            command = katcp_tornado.commands[name]
            context = click.Context(command, info_name=name, parent=context, **options)
        text = command.get_help(context)
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
