"""The house rules that import-linter cannot say; the floors themselves stand in pyproject.toml.

- Imports that run make no circle.
- An import under ``if TYPE_CHECKING:`` that points to a floor above names a type, and nothing else.
- katcp_codec's inside and tornado.iostream are known to one module each.
- Names with an underscore stay in their folder.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import katcp_tornado

PACKAGE = "katcp_tornado"
ROOT = Path(katcp_tornado.__file__).parent
OWNERS = {"katcp_codec": "katcp_tornado.wire.codec", "tornado.iostream": "katcp_tornado.transport.stream"}


class Import(NamedTuple):
    importer: str
    target: str  # the module, or the object in it
    typing_only: bool


def imports(root: Path) -> list[Import]:
    """Every import of every module below *root*, by full names."""
    found = []
    for path in root.rglob("*.py"):
        parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
        package = parts[:-1]
        importer = ".".join(package if parts[-1] == "__init__" else parts)
        for node, typing_only in _import_nodes(ast.parse(path.read_text(encoding="utf-8")), False):
            if isinstance(node, ast.Import):
                found += [Import(importer, alias.name, typing_only) for alias in node.names]
                continue
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found += [Import(importer, f"{module}.{alias.name}", typing_only) for alias in node.names]
    return found


def _import_nodes(node: ast.AST, typing_only: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, typing_only
        else:
            named = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _import_nodes(child, typing_only or named)


FOUND = imports(ROOT)
MODULES = {it.importer for it in FOUND}


def module_of(target: str) -> str:
    return target if target in MODULES else target.rpartition(".")[0]


def test_there_is_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for it in FOUND:
        if it.target.startswith(PACKAGE) and not it.typing_only and module_of(it.target) != it.importer:
            graph.setdefault(it.importer, set()).add(module_of(it.target))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        raise AssertionError(" <- ".join(exc.args[1])) from None


def test_what_is_imported_for_types_is_a_type() -> None:
    wrong = [it for it in FOUND if it.typing_only and not it.target.rpartition(".")[2][:1].isupper()]
    assert not wrong


def test_owners() -> None:
    wrong = [
        it
        for it in FOUND
        for what, owner in OWNERS.items()
        if f"{it.target}.".startswith(f"{what}.")
        and it.importer != owner
        and not it.importer.startswith(f"{PACKAGE}.testing")
    ]
    assert not wrong


def test_private_names_stay_in_their_folder() -> None:
    wrong = [
        it
        for it in FOUND
        if it.target.startswith(PACKAGE)
        and it.target.rpartition(".")[2].startswith("_")
        and not it.target.endswith("__")
        and it.importer.split(".")[1:2] != it.target.split(".")[1:2]
    ]
    assert not wrong
