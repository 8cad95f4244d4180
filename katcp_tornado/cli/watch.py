"""``katcp-tornado sensors --watch`` on a terminal: the sensors of a device, live and in place.

The application of textual runs on the client's own loop. A timer paints the rows that are in sight from what the
watcher knows then; an update of a sensor by itself paints nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Input, Static

from .. import Client, Reading, SensorStatus, SensorWatcher, State, SyncState
from ..errors import describe
from . import show
from .targets import Target

#: Seconds between two paintings.
PERIOD = 0.5
#: Seconds between two sortings by what changes.
RESORT = 2.0
#: The width from which on there is room for all columns.
WIDE = 72
GREY = "bright_black"
#: Widths of the columns beside the name; a description follows where there is room for it.
_FIXED = {"value": 12, "units": 6, "status": 11, "age": 6}
_FIXED_NARROW = {"value": 11, "status": 7}

#: Statuses, those first that an operator looks for.
_GRAVITY = ["failure", "error", "warn", "unreachable", "inactive", "unknown", "nominal"]
_SORTS = ("name", "status", "age", "value")


class Watcher(SensorWatcher):
    """A mirror that also keeps the last valid reading of each sensor."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self.valid: dict[str, Reading] = {}

    def sensor_updated(self, name: str, reading: Reading) -> None:
        if reading.status.valid_value:
            self.valid[name] = reading

    def sensor_removed(self, name: str) -> None:
        self.valid.pop(name, None)


class Row(NamedTuple):
    """What is shown of a sensor."""

    name: str
    value: str
    units: str
    status: str
    age: str
    description: str


class WatchApp(App[bool]):
    """The screen: state of the connection, table of sensors, keys.

    Its result is True if the user has seen enough, False if that was by Ctrl-C, None if its task was cancelled: textual
    swallows that.
    """

    CSS = """
    #head { height: auto; max-height: 4; padding: 0 1; }
    DataTable { height: 1fr; scrollbar-size-horizontal: 1; scrollbar-size-vertical: 1; }
    Input { display: none; height: 1; border: none; }
    Input.open { display: block; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort", "sort"),
        Binding("q", "quit", "quit"),
        Binding("escape", "unfilter", show=False),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
    ]

    def __init__(self, target: Target, client: Client, watcher: Watcher, names: Sequence[str] = ()) -> None:
        super().__init__()
        self._target = target
        self._client = client
        self._watcher = watcher
        self._names = names
        self._head = Static(id="head", markup=False)
        self._table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=0)
        self._input = Input(placeholder="a part of a name, or a regular expression")
        self._search: Callable[[str], object] = lambda name: True
        self._sort = "name"
        self._sorted_at = 0.0
        self._listed: set[str] = set()
        self._order: list[str] = []
        self._painted: dict[int, tuple[object, ...]] = {}
        self._columns: dict[str, int] = {}

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._table
        yield self._input
        yield Footer()

    def on_mount(self) -> None:
        self._table.focus()
        self.watch(self._table, "scroll_y", self._paint, init=False)
        self.set_interval(PERIOD, self._paint)

    def on_resize(self) -> None:
        self.call_after_refresh(self._lay)

    # What keys do

    def action_filter(self) -> None:
        self._input.add_class("open")
        self._input.focus()

    def action_unfilter(self) -> None:
        self._input.value = ""
        self._close_input()

    def action_sort(self) -> None:
        self._sort = _SORTS[(_SORTS.index(self._sort) + 1) % len(_SORTS)]
        self._sorted_at = 0.0
        self._paint()

    async def action_quit(self) -> None:
        self.exit(True)

    async def action_interrupt(self) -> None:
        self.exit(False)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._search = _searching(event.value)
        self._sorted_at = 0.0
        self._paint()

    def on_input_submitted(self) -> None:
        self._close_input()

    def _close_input(self) -> None:
        self._input.remove_class("open")
        self._table.focus()

    # Painting

    def _lay(self) -> None:
        """Make the columns as wide as the terminal and the names ask for."""
        width = self.size.width - 2  # a scrollbar, and a gap
        longest = max((len(name) for name in self._watcher.sensors), default=4)
        widths = dict(_FIXED if width >= WIDE else _FIXED_NARROW)
        room = width - sum(widths.values()) - len(widths)
        widths = {"name": max(4, min(longest, room)), **widths}
        rest = room - widths["name"] - 1
        if width >= WIDE and rest >= 10:
            widths["description"] = rest
        self._table.clear(columns=True)
        self._columns = widths
        for column, wide in widths.items():
            self._table.add_column(column, width=wide + 1, key=column)
        self._rows(len(self._order))
        self._painted.clear()
        self._paint()

    def _rows(self, count: int) -> None:
        """Give the table so many rows, whose cells are painted once they are in sight."""
        blank = [Text()] * len(self._columns)
        if count < self._table.row_count:
            self._table.clear()
            self._painted.clear()
        self._table.add_rows(blank for _ in range(count - self._table.row_count))

    def _arrange(self) -> None:
        """Put the sensors in order again, if need be."""
        now = self._client.io_loop.time()
        watched = self._watcher.sensors
        if self._sorted_at and (
            now - self._sorted_at < RESORT or (self._sort == "name" and self._listed == watched.keys())
        ):
            return
        self._sorted_at = now
        grown = max(map(len, watched), default=0) > max(map(len, self._listed), default=0)
        self._listed = set(watched)
        self._order = sorted(filter(self._search, watched))
        if self._sort != "name":
            self._order.sort(key=self._rank)
        if grown and self._columns:
            self._lay()
        elif len(self._order) != self._table.row_count:
            self._rows(len(self._order))

    def _rank(self, name: str) -> Any:
        reading = self._watcher.sensors[name].reading
        known = self._watcher.valid.get(name)
        if self._sort == "status":
            return _GRAVITY.index("unknown" if reading is None else reading.status.value)
        if self._sort == "age":
            return 0.0 if known is None else known.timestamp
        value = None if known is None else known.value
        if isinstance(value, (bool, int, float)):
            return (0, -value, "") if value == value else (1, 0, "")
        return (2, 0, show.value_text(known))

    def _paint(self) -> None:
        """Paint the header, and the rows that are in sight."""
        if self._columns:
            self._arrange()
        self._head.update(self._header())
        first = int(self._table.scroll_y)
        for index in range(first, min(first + self.size.height, len(self._order))):
            row, style = self._row(self._order[index])
            if self._painted.get(index) != (row, style):
                self._painted[index] = (row, style)
                for at, (column, width) in enumerate(self._columns.items()):
                    self._table.update_cell_at(Coordinate(index, at), self._cell(column, width, row, style))

    def _row(self, name: str) -> tuple[Row, str]:
        sensor = self._watcher.sensors.get(name)
        if sensor is None:
            return Row(show.printable(name), "", "", "", "", ""), GREY
        info, reading = sensor.info, sensor.reading
        away = reading is not None and reading.status is SensorStatus.UNREACHABLE
        shown = self._watcher.valid.get(name, reading) if away else reading
        row = Row(
            show.printable(info.name),
            show.value_text(shown),
            show.printable(info.units),
            "unknown" if reading is None else reading.status.value,
            "" if shown is None else _age(shown.timestamp),
            show.printable(info.description),
        )
        return row, GREY if away else ""

    def _cell(self, column: str, width: int, row: Row, style: str) -> Text:
        text: str = getattr(row, column)
        if not style and column == "status":
            style = show.STYLES.get(text, "")
        if column == "value" and "units" not in self._columns and row.units:
            text = f"{text} {row.units}"
        if len(text) > width:  # of a name, its end says most
            text = "…" + text[1 - width :] if column == "name" else text[: width - 1] + "…"
        return Text(text.rjust(width) if column in ("value", "age") else text, style=style, no_wrap=True)

    def _header(self) -> Text:
        client, watcher = self._client, self._watcher
        parts = [(f"{self._target.address} ", "bold")]
        style = "green" if client.is_connected else "red"
        left = client.stats.next_attempt_in
        if client.state is State.SLEEPING and left is not None:
            parts.append((f"away, next attempt in {left:.1f} s", style))
        else:
            parts.append((client.state.name.lower(), style))
        shown, all_ = len(self._order), len(watcher.sensors)
        count = f"{shown} of {all_}" if shown != all_ else f"{all_}"
        parts.append((f"  {count} sensors, by {self._sort}", ""))
        if watcher.state is SyncState.SYNCING and client.is_connected:
            parts.append((", asking", "yellow"))
        error = client.last_exc or (watcher.last_exc if client.is_connected else None)
        missing = [name for name in self._names if name not in watcher.sensors]
        if error is not None:
            parts.append((f"\n{show.printable(describe(error))}", style if client.is_connected is False else "yellow"))
        elif missing and watcher.state is SyncState.SYNCED:
            parts.append((f"\nthe device has no sensor {show.printable(', '.join(missing))}", "yellow"))
        return Text.assemble(*parts)


def _age(timestamp: float) -> str:
    """The age of a reading in whole seconds: what changes with every painting costs most of it."""
    seconds = time.time() - timestamp
    return f"{seconds:.0f}s" if abs(seconds) < 60 else show.age(timestamp).replace(" ", "")


def _searching(text: str) -> Callable[[str], object]:
    """A function that is true of the names that fit what was typed."""
    try:
        return re.compile(text.strip("/"), re.IGNORECASE).search
    except re.error:  # it is being typed
        return lambda name: text.lower() in name.lower()
