"""The house rules of the package, read from its source.

`LEVELS` says where each module stands. A module imports only from strictly lower levels, except along
`SIDEWAYS`. What stands under ``if TYPE_CHECKING:`` does not count; an import inside a function does.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import katcp_tornado

PACKAGE = "katcp_tornado"
ROOT = Path(katcp_tornado.__file__).parent

#: From the ground up. A folder is one unit, and "__init__" is the list of the names that we promise.
LEVELS: list[tuple[str, set[str]]] = [
    (
        "L0 facts and values",
        {
            "errors",
            "codec",
            "values",
            "message",
            "protocol",
            "backoff",
            "states",
            "stats",
            "options",
            "sensor_types",
            "strategies",
        },
    ),
    ("L1 a conversation, without I/O", {"session", "lanes", "informs"}),
    ("L2 sockets and timers", {"lookup", "dialer", "stream", "requests", "derived", "timers", "turns", "watchdog"}),
    ("L3 the connection", {"listeners", "reporter", "ledger", "link"}),
    (
        "L4 what outlives a connection",
        {"readings", "catalogue", "items", "intake", "sampling", "subscriptions", "watcher", "logs", "hints"},
    ),
    ("L5 the public face", {"client"}),
    ("the names that we promise", {"__init__"}),
    ("L6 on top of the client", {"blocking", "cli"}),
    ("top", {"testing"}),
]

#: Who may import from its own level (L0 apart, where anything goes that is not circular).
SIDEWAYS = {
    "session": {"lanes"},
    "dialer": {"lookup", "timers"},
    "stream": {"lookup", "timers"},
    "requests": {"timers"},
    "watchdog": {"timers"},
    "link": {"listeners", "reporter", "ledger"},
    "intake": {"items"},
    "sampling": {"catalogue", "intake", "items"},
    "watcher": {"items", "sampling", "subscriptions"},
}

#: Who may import from a level above: the demonstration runs a FakeDevice.
UPWARDS = {"cli": {"testing"}}

#: What the ones on top of the client may know of the package, besides L0.
PUBLIC = {"client", "__init__"}

#: What a unit may import from outside the package and the standard library.
CORE = {"tornado", "katcp_codec"}
FOREIGN = {"cli": CORE | {"click", "rich"}}

#: What only one module of the core may know of.
OWNERS = {"katcp_codec": "codec", "tornado.iostream": "stream"}

#: The conversation has no I/O and no clock, and nothing that it imports has.
PURE = "session"
IMPURE = {"tornado", "asyncio", "socket", "time", "select", "selectors", "ssl", "threading", "concurrent"}
PURE_EXCEPTIONS = {("errors", "tornado.util")}

LEVEL_OF = {unit: level for level, (_, units) in enumerate(LEVELS) for unit in units}


class Import(NamedTuple):
    importer: str  # "session", "cli.demo"
    line: int
    target: str  # inside the package: "errors", "cli.demo"; outside: "tornado.util"
    names: tuple[str, ...]  # what is taken from it, with "from"
    inside: bool

    def __str__(self) -> str:
        where = f"{PACKAGE}.{self.target}" if self.inside else self.target
        return f"{PACKAGE}/{self.importer.replace('.', '/')}.py:{self.line}: imports {where}"


def unit(module: str) -> str:
    """The row of the table that a module belongs to."""
    return module.split(".", maxsplit=1)[0]


def modules(root: Path) -> dict[str, Path]:
    """The modules below *root* by dotted name; a package is "name.__init__", or "__init__" for the root."""
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in sorted(root.rglob("*.py"))}


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _import_nodes(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for other in child.orelse:
                yield from _import_nodes(ast.Module([other], []))
        else:
            yield from _import_nodes(child)


def imports(root: Path) -> list[Import]:
    """Every import of every module below *root* that happens when the code runs."""
    known = modules(root)

    def resolve(path: str) -> str:
        """A dotted path below the package to the name of a module ("cli" -> "cli.__init__")."""
        package = f"{path}.__init__" if path else "__init__"
        return package if package in known else path

    found = []
    for name, path in known.items():
        for node in _import_nodes(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    head, _, rest = alias.name.partition(".")
                    inside = head == PACKAGE
                    found.append(Import(name, node.lineno, resolve(rest) if inside else alias.name, (), inside))
                continue
            if node.level:
                parts = name.split(".")
                base = parts[: len(parts) - node.level] + (node.module.split(".") if node.module else [])
            elif (node.module or "").split(".")[0] == PACKAGE:
                base = (node.module or "").split(".")[1:]
            else:
                names = tuple(alias.name for alias in node.names)
                found.append(Import(name, node.lineno, node.module or "", names, False))
                continue
            for alias in node.names:
                child = resolve(".".join([*base, alias.name]))
                if child in known:  # from . import codec
                    found.append(Import(name, node.lineno, child, (), True))
                else:
                    found.append(Import(name, node.lineno, resolve(".".join(base)), (alias.name,), True))
    return found


def unknown_units(root: Path) -> list[str]:
    return [
        f"{PACKAGE}/{name.replace('.', '/')}.py: not in LEVELS of tests/test_layers.py; decide where it stands"
        for name in modules(root)
        if unit(name) not in LEVEL_OF
    ]


def wrong_levels(found: Iterable[Import]) -> list[str]:
    wrong = []
    for it in found:
        mine, its = unit(it.importer), unit(it.target)
        if not it.inside or mine == its or mine not in LEVEL_OF:
            continue
        if its not in LEVEL_OF:
            wrong.append(f"{it}, which is not in LEVELS")
            continue
        here, there = LEVEL_OF[mine], LEVEL_OF[its]
        sideways = here == there and (here == 0 or its in SIDEWAYS.get(mine, ()))
        if there >= here and not sideways and its not in UPWARDS.get(mine, ()):
            wrong.append(f"{it}: {LEVELS[here][0]!r} must not import from {LEVELS[there][0]!r}")
    return wrong


def circles(found: Iterable[Import]) -> list[str]:
    """A circle of imports, as text; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for it in found:
        if it.inside:
            graph.setdefault(it.importer, set()).add(it.target)
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [" -> ".join([*path[path.index(module) :], module])]
        if module in done:
            return []
        bad = [line for target in sorted(graph.get(module, ())) for line in visit(target, [*path, module])]
        done.add(module)
        return bad

    return [line for module in sorted(graph) for line in visit(module, [])]


def closure(found: Iterable[Import], start: str) -> set[str]:
    """The modules that *start* imports, directly or through others, with itself."""
    found = list(found)
    reached, todo = {start}, [start]
    while todo:
        module = todo.pop()
        for it in found:
            if it.importer == module and it.inside and it.target not in reached:
                reached.add(it.target)
                todo.append(it.target)
    return reached


def impurities(found: Iterable[Import]) -> list[str]:
    found = list(found)
    pure = closure(found, PURE)
    return [
        f"{it}; {PURE}, which stands on it, has no I/O and no clock"
        for it in found
        if it.importer in pure
        and not it.inside
        and it.target.split(".")[0] in IMPURE
        and (it.importer, it.target) not in PURE_EXCEPTIONS
    ]


def strangers(found: Iterable[Import]) -> list[str]:
    """Dependencies that a user of the core would not have installed."""
    standard = sys.stdlib_module_names  # type: ignore[attr-defined,unused-ignore]  # 3.10
    return [
        f"{it}: not a dependency"
        for it in found
        if not it.inside
        and unit(it.importer) != "testing"
        and it.target.split(".")[0] not in standard
        and it.target.split(".")[0] not in FOREIGN.get(unit(it.importer), CORE)
    ]


def trespasses(found: Iterable[Import]) -> list[str]:
    """What has one owner, and is used by another."""
    return [
        f"{it}: that is for {owner} alone"
        for it in found
        for what, owner in OWNERS.items()
        if not it.inside
        and unit(it.importer) not in (owner, "testing")
        and any(f"{name}.".startswith(f"{what}.") for name in (it.target, *(f"{it.target}.{n}" for n in it.names)))
    ]


def not_public(found: Iterable[Import]) -> list[str]:
    """What the ones on top of the client reach for behind its back."""
    tops = {name for name, level in LEVEL_OF.items() if "L6" in LEVELS[level][0]}
    return [
        f"{it}: only the public client, please"
        for it in found
        if it.inside
        and (mine := unit(it.importer)) in tops
        and unit(it.target) not in PUBLIC | LEVELS[0][1] | UPWARDS.get(mine, set()) | {mine}
    ]


def privates(found: Iterable[Import]) -> list[str]:
    """Names with an underscore that one unit takes from another."""
    return [
        f"{it} {name}"
        for it in found
        if it.inside and unit(it.importer) != unit(it.target)
        for name in it.names
        if name.startswith("_") and not name.startswith("__")
    ]


FOUND = imports(ROOT)


def check(broken: list[str]) -> None:
    assert not broken, "\n" + "\n".join(broken)


def test_every_module_is_in_the_table() -> None:
    check(unknown_units(ROOT))


def test_imports_go_down() -> None:
    check(wrong_levels(FOUND))


def test_no_circles() -> None:
    check(circles(FOUND))


def test_the_session_is_pure() -> None:
    assert PURE in modules(ROOT)
    check(impurities(FOUND))


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")
def test_dependencies() -> None:
    check(strangers(FOUND))


def test_owners() -> None:
    check(trespasses(FOUND))


def test_the_top_uses_the_public_client() -> None:
    check(not_public(FOUND))


def test_nobody_takes_private_names() -> None:
    check(privates(FOUND))


# The rules themselves: each can fail.


def package(root: Path, **sources: str) -> list[Import]:
    (root / "__init__.py").touch()
    for name, source in sources.items():
        path = root.joinpath(*name.split("__", 1)).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return imports(root)


@pytest.mark.parametrize(
    "source",
    [
        "from .client import Client",
        "from . import client",
        "import katcp_tornado.client",
        "from katcp_tornado.client import Client",
        "from katcp_tornado import client",
        "from katcp_tornado import Client",
        "def f():\n    from .client import Client",
        "try:\n    from .client import Client\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from .client import Client",
        "from .cli.demo import x",
        "from .link import Link",
    ],
)
def test_upward_imports_are_found(tmp_path: Path, source: str) -> None:
    found = package(tmp_path, stream=source, client="", link="", cli__demo="")
    assert len(wrong_levels(found)) == 1, found
    assert wrong_levels(found)[0].startswith("katcp_tornado/stream.py:")


@pytest.mark.parametrize(
    "source",
    [
        "from .errors import KatcpError",
        "from . import errors",
        "import typing\nif typing.TYPE_CHECKING:\n    from .client import Client",
        "if TYPE_CHECKING:\n    from .client import Client",
        "from tornado.iostream import IOStream",
    ],
)
def test_good_imports_are_left_alone(tmp_path: Path, source: str) -> None:
    found = package(tmp_path, stream=source, client="", errors="")
    assert not wrong_levels(found)
    assert not circles(found)
    assert not unknown_units(tmp_path)


def test_sideways(tmp_path: Path) -> None:
    assert not wrong_levels(package(tmp_path, watcher="from . import subscriptions", subscriptions=""))
    assert len(wrong_levels(package(tmp_path, watcher="", subscriptions="from .watcher import x"))) == 1


def test_relative_imports_in_a_folder(tmp_path: Path) -> None:
    found = package(
        tmp_path, cli__demo="from ..testing import F\nfrom .. import Client\nfrom . import other", cli__other=""
    )
    assert [(it.target, it.names) for it in found] == [
        ("testing", ("F",)),
        ("__init__", ("Client",)),
        ("cli.other", ()),
    ]
    assert not wrong_levels(found)
    assert not not_public(found)
    found = package(tmp_path, cli__demo="from ..link import Link", cli__other="", link="")
    assert len(not_public(found)) == 1


def test_an_unknown_module_is_found(tmp_path: Path) -> None:
    package(tmp_path, gadgets="")
    assert "decide where it stands" in unknown_units(tmp_path)[0]


def test_circles_are_found(tmp_path: Path) -> None:
    found = package(
        tmp_path, errors="from . import values", values="from . import message", message="from .errors import x"
    )
    assert circles(found) == ["errors -> values -> message -> errors"]


def test_impurities_are_found(tmp_path: Path) -> None:
    found = package(tmp_path, session="from . import message", message="from .values import x", values="import time")
    assert len(impurities(found)) == 1
    found = package(tmp_path, session="from .errors import x", errors="from tornado.util import TimeoutError")
    assert not impurities(found)
    found = package(tmp_path, session="from tornado.util import TimeoutError")
    assert len(impurities(found)) == 1


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")
def test_strangers_are_found(tmp_path: Path) -> None:
    found = package(tmp_path, client="import click", cli__a="import click, socket", testing="import pytest")
    assert [it.split(":")[0] for it in strangers(found)] == ["katcp_tornado/client.py"]


def test_trespasses_are_found(tmp_path: Path) -> None:
    found = package(
        tmp_path, link="from tornado import iostream", codec="import katcp_codec", stats="import katcp_codec"
    )
    assert [it.split(":")[0] for it in trespasses(found)] == ["katcp_tornado/link.py", "katcp_tornado/stats.py"]


def test_private_names_are_found(tmp_path: Path) -> None:
    found = package(tmp_path, logs="from .link import _hidden\nfrom .link import __doc__", link="")
    assert len(privates(found)) == 1
