"""Common parts of the commands: exit codes, and a way out when it is interrupted or nobody reads what it writes."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import io
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Callable, NoReturn, Optional, TextIO

import click


class ExitCode(enum.IntEnum):
    """Exit code of a command."""

    OK = 0
    #: The device, or the demonstration, says no.
    REFUSED = 1
    #: The command line makes no sense. click uses the same.
    USAGE = 2
    NO_CONNECTION = 3
    TIMEOUT = 4
    #: Ctrl-C: as if the signal had ended the process.
    INTERRUPTED = 130
    #: Nobody reads what we write (``| head``), likewise.
    BROKEN_PIPE = 141
    #: SIGTERM, likewise.
    TERMINATED = 143


class Output:
    """The standard output of a command.

    When it cannot be written to, nothing is raised, since that might be inside somebody's callback: the command is
    told (*failed* is called, once) and the rest is dropped.
    """

    def __init__(self, stream: Optional[TextIO], failed: Callable[[], object]) -> None:
        # Without a standard output (``>&-``) there is nobody to write to, as with /dev/null.
        self._stream: TextIO = stream if stream is not None else io.StringIO()
        self._failed = failed
        #: Why it cannot be written to.
        self.error: Optional[OSError] = None

    @property
    def encoding(self) -> str:
        """Encoding of the stream, as rich asks for it."""
        return self._stream.encoding or "ascii"

    def isatty(self) -> bool:
        """True if it is a terminal."""
        return self._stream.isatty()

    def is_screen(self) -> bool:
        """True if it, the standard input and the standard error are terminals: a person sits there."""
        return self.isatty() and all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))

    def fileno(self) -> int:
        """The file descriptor."""
        return self._stream.fileno()

    def line(self, text: str) -> None:
        """Write a line, at once: somebody may be watching a long reply."""
        self.write(f"{text}\n")
        self.flush()

    def write(self, text: str) -> int:
        """Write some text."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Hand it over to whoever reads."""
        self._try(self._stream.flush)

    def _try(self, function: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            function()
        except OSError as exc:
            self.error = exc
            _drop(self._stream)
            self._failed()


def _drop(stream: TextIO) -> None:
    """Drop what is left: the interpreter flushes it when it exits, and would complain."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def invoke(command: click.Command, args: Optional[Sequence[str]]) -> NoReturn:
    """Run the command that the arguments name, and exit. Its errors, those of usage too, are one line."""
    code: Any = ExitCode.OK
    stdout = sys.stdout
    try:
        code = command.main(args, prog_name="katcp-tornado", standalone_mode=False)
    except click.ClickException as exc:
        code = exc.exit_code
        if type(exc).__name__ == "NoArgsIsHelpError":
            exc.show()
        else:
            ctx = getattr(exc, "ctx", None)
            path = "katcp-tornado" if ctx is None else ctx.command_path
            complain(f"{exc.format_message()} (see {path} --help)")
    except click.Abort:
        code = ExitCode.INTERRUPTED
    except SystemExit as exc:
        code = exc.code if sys.stdout is stdout else ExitCode.BROKEN_PIPE  # click has put another in its place
    except OSError as exc:  # of the help, on a full disk
        _drop(sys.stdout)
        complain(f"cannot write: {exc}")
        code = ExitCode.REFUSED
    sys.exit(code)


def run(command: Callable[[Output], Coroutine[Any, Any, ExitCode]]) -> NoReturn:
    """Run a command on a loop of its own, and exit as it says."""
    ended: list[signal.Signals] = []

    async def run_it() -> ExitCode:
        task = asyncio.current_task()
        assert task is not None
        _let_signals_cancel(task, ended)
        output = Output(sys.stdout, task.cancel)
        try:
            code = await command(output)
            await asyncio.sleep(0)  # if the very last line could not be written, hear of it
        except asyncio.CancelledError:
            if output.error is None:  # a signal
                raise
        else:
            if output.error is None:
                return code
        if isinstance(output.error, BrokenPipeError):
            return ExitCode.BROKEN_PIPE
        complain(f"cannot write: {output.error}")
        return ExitCode.REFUSED

    try:
        code = asyncio.run(run_it())
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = ExitCode.TERMINATED if signal.SIGTERM in ended else ExitCode.INTERRUPTED
    sys.exit(code)


def run_checked(command: Callable[[Output], Coroutine[Any, Any, ExitCode]]) -> NoReturn:
    """Run a command; a ValueError that it raises is one of the command line."""

    async def checked(output: Output) -> ExitCode:
        try:
            return await command(output)
        except ValueError as exc:
            complain(str(exc))
            return ExitCode.USAGE

    run(checked)


def _let_signals_cancel(task: asyncio.Task[Any], ended: list[signal.Signals]) -> None:
    """Let Ctrl-C and SIGTERM cancel the command between two callbacks, as `asyncio.run` does from Python 3.11 on.

    A KeyboardInterrupt comes anywhere: in the middle of a library's callback, or of the one that would wake the
    command up to end it. SIGTERM would leave the terminal as it is at that moment.
    """

    def end(number: signal.Signals) -> None:
        ended.append(number)
        task.cancel()

    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is default:  # and neither ignored nor asyncio's own
            with contextlib.suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(number, end, number)


def complain(text: str) -> None:
    """Write a line to the standard error. What is not printable in it is escaped: it may come from a device."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    with contextlib.suppress(OSError):
        click.echo(f"katcp-tornado: {safe}", err=True)
