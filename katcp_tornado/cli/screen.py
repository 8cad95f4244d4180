"""Output of the demonstration: titled sections of short lines, each with its time and what it speaks of.

In colour on a terminal, in plain text elsewhere. Lines are broken for 80 columns, whatever the terminal has.
"""

from __future__ import annotations

import asyncio
import logging
import textwrap
from typing import IO, cast

from rich.console import Console
from rich.text import Text

from ..errors import describe
from .terminal import Output

_WIDTH = 79
_INDENT = 16

#: What a line may speak of, and its colour.
STYLES = {
    "device": "magenta",
    "client": "blue",
    "state": "cyan",
    "request": "bold",
    "reply": "green",
    "sensor": "green",
    "raised": "yellow",
    "failed": "red",
    "log": "dim",
}


class Screen:
    """Where the demonstration writes. Times are those of the running loop."""

    def __init__(self, output: Output) -> None:
        self._console = Console(file=cast("IO[str]", output), highlight=False, markup=False, emoji=False)
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._sections = 0
        #: The section that is being shown.
        self.section = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._loop.time() - self._start

    def heading(self, title: str, text: str) -> None:
        """The head of it all."""
        self._print(Text(title, "bold"))
        self._paragraph(text)

    def title(self, title: str, text: str) -> None:
        """Begin a section."""
        self._sections += 1
        self.section = f"{self._sections}. {title}"
        self._print(Text())
        self._print(Text(self.section, "bold underline"))
        self._paragraph(text)

    def line(self, kind: str, text: str) -> None:
        """Something has happened; *kind* is one of `STYLES`."""
        first, *rest = textwrap.wrap(text, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False) or [""]
        style = STYLES[kind]
        body = "dim" if kind == "log" else ""
        self._print(Text.assemble((f"{self.elapsed:6.2f}  ", "dim"), (f"{kind:<8}", style), (first, body)))
        for more in rest:
            self._print(Text.assemble(" " * _INDENT, (more, body)))

    def verdict(self, text: str) -> None:
        """The last line, when all is well."""
        self._print(Text())
        self._print(Text(text, "bold green"))

    def _paragraph(self, text: str) -> None:
        for line in textwrap.wrap(text, _WIDTH):
            self._print(Text(line, "dim"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


class ScreenHandler(logging.Handler):
    """Shows the library's own log as a part of the demonstration."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        #: The records from ERROR upwards.
        self.errors: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """A logger calls this."""
        text = f"{record.levelname} {record.getMessage()}"
        if record.exc_info is not None:
            text += f": {describe(record.exc_info[1])}"
        if record.levelno >= logging.ERROR:
            self.errors.append(record)
        self._screen.line("log", text)
