"""Each branch of `next_step` broken on purpose: which test of test_steps.py fails?

``pytest -rP tests/sensors/test_steps_broken.py`` shows the table.
"""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import sys
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import test_steps  # type: ignore[import-not-found]

from katcp_tornado.sensors import steps
from katcp_tornado.sensors.strategies import NONE

SOURCE = inspect.getsource(steps.next_step)


def every_combination() -> None:
    wanted, accepted = (None, NONE, test_steps.AUTO), (None, NONE, test_steps.AUTO, test_steps.EVENT)
    for facts in itertools.product(wanted, accepted):
        test_steps.test_every_combination(*facts)


OPPOSITE: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(),
    ast.In: ast.NotIn(),
}
TESTS: dict[str, Callable[[], None]] = {
    "every combination": every_combination,
    "the newest": test_steps.test_the_newest_that_is_not_blocked_is_wanted,
    "types": test_steps.test_who_names_a_type_does_not_wait_for_the_device_s_own,
    "comma, bulk": lambda: test_steps.test_a_comma_stands_between_names_only_where_there_are_bulk_requests(
        True, steps.Step.REJECT
    ),
    "comma, no bulk": lambda: test_steps.test_a_comma_stands_between_names_only_where_there_are_bulk_requests(
        False, steps.Step.SET
    ),
}


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Other nodes that might stand in the place of this one."""
    if isinstance(node, ast.If):
        for value in (True, False):
            yield ast.If(ast.Constant(value), node.body, node.orelse)
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        for index in range(len(node.values)):
            rest = node.values[:index] + node.values[index + 1 :]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.Compare):
        yield ast.Compare(node.left, [OPPOSITE[type(node.ops[0])]], node.comparators)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Step":
        for step in steps.Step:
            if step.name != node.attr:
                yield ast.Attribute(node.value, step.name, node.ctx)


def broken() -> Iterator[Any]:
    """Each way to break one place of the function: its source, with what is other than it was as the name."""
    tree = ast.parse(SOURCE)
    right = ast.unparse(tree).splitlines()
    for number, node in enumerate(ast.walk(tree)):
        for variant in variants(node):
            other = copy.deepcopy(tree)
            place = next(itertools.islice(ast.walk(other), number, None))

            class Put(ast.NodeTransformer):
                def visit(self, node: ast.AST) -> Any:
                    return variant if node is place else self.generic_visit(node)  # noqa: B023

            source = ast.unparse(ast.fix_missing_locations(Put().visit(other)))
            pairs = zip(right, source.splitlines())
            was, now = next(((old.strip(), new.strip()) for old, new in pairs if old != new), ("", ""))
            yield pytest.param(source, id=f"{was} -> {now}")


@pytest.mark.parametrize("source", list(broken()))
def test_it_is_noticed(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = dict(vars(steps))
    exec(compile(source, "broken", "exec"), names)
    monkeypatch.setattr(steps.next_step, "__code__", names["next_step"].__code__)
    noticed = []
    for name, test in TESTS.items():
        try:
            test()
        except AssertionError:
            noticed.append(name)
    sys.stdout.write(", ".join(noticed))
    assert noticed


def test_what_is_not_broken_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        test_it_is_noticed(SOURCE, monkeypatch)
