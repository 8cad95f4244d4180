"""katcp-tornado as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

import katcp_tornado
from katcp_tornado.cli import commands
from katcp_tornado.cli.options import listen_option

COMMANDS = ["request", "sensors", "wait", "shell", "log", "ping", "record", "replay", "export", "web", "demo"]


def python(*args: Any) -> Any:
    return subprocess.run(
        [sys.executable, "-W", "error", *args], check=False, capture_output=True, text=True, timeout=60
    )


def test_version() -> None:
    result = CliRunner().invoke(commands.katcp_tornado, ["--version"], prog_name="katcp-tornado")
    assert (result.exit_code, result.output) == (0, f"katcp-tornado {katcp_tornado.__version__}\n")


@pytest.mark.parametrize("args", [[], *([name] for name in COMMANDS)])
def test_help_has_examples(args: Any) -> None:
    result = CliRunner().invoke(commands.katcp_tornado, [*args, "--help"], prog_name="katcp-tornado")
    assert result.exit_code == 0
    assert "\n  Examples:\n    katcp-tornado " in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_help_names_every_command() -> None:
    assert set(commands.katcp_tornado.commands) == set(COMMANDS)
    result = CliRunner().invoke(commands.katcp_tornado, ["--help"])
    for name in COMMANDS:
        assert f"\n  {name} " in result.output


@pytest.mark.parametrize("args", [["nonesuch"], ["--nonesuch"], ["demo", "more"]])
def test_usage_errors(args: Any) -> None:
    result = CliRunner().invoke(commands.katcp_tornado, args)
    assert result.exit_code == 2
    assert "Error: " in result.output


@pytest.mark.parametrize("args", [["nonesuch"], ["request", "device", "not a name"], ["sensors", "--nonesuch"]])
def test_a_usage_error_is_one_line(args: Any) -> None:
    done = python("-m", "katcp_tornado", *args)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("katcp-tornado: ") and done.stderr.count("\n") == 1
    assert "--help" in done.stderr


@pytest.mark.parametrize(("full", "code"), [(False, 141), (True, 1)])
def test_a_help_that_cannot_be_written(full: bool, code: int) -> None:
    command = [sys.executable, "-m", "katcp_tornado", "--help"]
    if full:
        with open("/dev/full", "w") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=False, timeout=60)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
        os.close(writing)
    assert done.returncode == code and done.stderr.count(b"\n") == full


def test_run_as_a_module() -> None:
    done = python("-m", "katcp_tornado.cli", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"katcp-tornado {katcp_tornado.__version__}\n", "")


def test_the_package_is_the_command_too() -> None:
    done = python("-m", "katcp_tornado", "-h")
    assert done.returncode == 0 and done.stdout.startswith("Usage: katcp-tornado ")


@pytest.mark.parametrize(("missing", "args"), [("click", []), ("rich", ["demo"])])
def test_without_the_extra(missing: str, args: Any) -> None:
    without = f"import sys; sys.modules[{missing!r}] = None; import katcp_tornado.cli as cli"
    done = python("-c", f"{without}; cli.main({args})")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f'katcp-tornado: {missing} is not installed; install it with: pip install "katcp_tornado[cli]"\n'
    )


def test_help_imports_nothing_that_is_slow() -> None:
    """Nor does a request of a program: what draws on terminals is imported when it draws."""
    slow = {
        "rich",
        "textual",
        "prompt_toolkit",
        "prometheus_client",
        "platformdirs",
        "tornado.web",
        "katcp_tornado.web",
    }
    done = python(
        "-c",
        "import atexit, sys, katcp_tornado.cli as cli; import katcp_tornado.cli.request, katcp_tornado.cli.sensors\n"
        f"atexit.register(lambda: print({slow!r} & set(sys.modules), file=sys.stderr)); cli.main(['--help'])",
    )
    assert done.stderr == "set()\n"


def test_another_module_that_is_missing_is_not_blamed_on_the_extra() -> None:
    done = python("-c", "import sys; sys.modules['katcp_tornado.cli.terminal'] = None; from katcp_tornado.cli import *")
    assert done.returncode == 0
    done = python(
        "-c", "import sys; sys.modules['katcp_tornado.cli.terminal'] = None; import katcp_tornado.cli as c; c.main([])"
    )
    assert "ModuleNotFoundError" in done.stderr
    assert "[cli]" not in done.stderr


def test_ctrl_c_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "katcp_tornado.cli.commands")
    monkeypatch.setattr(click, "group", interrupted)
    with pytest.raises(SystemExit) as caught:
        katcp_tornado.cli.main([])
    assert caught.value.code == 130


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("80", ("127.0.0.1", 80)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0", ("0.0.0.0", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]", ("::1", 8080)),
        ("[::1]:80", ("::1", 80)),
        ("a:", None),
        ("::1", None),
        ("99999", None),
        ("", None),
    ],
)
def test_listen(text: str, address: Any) -> None:
    """``[HOST:]PORT``, or a host with the command's own port."""

    @click.command()
    @listen_option("127.0.0.1:8080")
    def command(listen: Any) -> None:
        assert tuple(listen) == address

    assert CliRunner().invoke(command, ["--listen", text]).exit_code == (2 if address is None else 0)
