"""Directives for the simulations of benchmarks/herd.py: ``herd-plot`` and ``herd-table``.

Both simulate when the documentation is built. ``.. herd-plot:: outage`` (or ``restart``, ``flapping``) is a figure, its
content the text for those who cannot see it.
"""

from __future__ import annotations

import io
import itertools
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import herd

# Okabe and Ito's palette, which the colour-blind can tell apart; and each policy has a panel, or a style, of its own.
POLICIES = {
    "katcp_tornado": (herd.Ours, "#0072B2", "-"),
    "aiokatcp": (herd.Aiokatcp, "#D55E00", "--"),
    "a fixed delay of 0.5 s": (herd.Fixed, "#009E73", ":"),
}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
WIDTH = 8.0  # inches


def draw(name: str) -> Any:
    """The figure of this name, of matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, {"outage": 6.4, "restart": 6.4, "flapping": 3.6}[name]), layout="constrained")
        {"outage": _outage, "restart": _restart, "flapping": _flapping}[name](figure)
    return figure


def _panels(figure: Any, server: herd.Server, until: float, width: float, back: float) -> list[Any]:
    """A histogram of the attempts for each policy, failed ones light, the others dark; on one scale."""
    panels = figure.subplots(len(POLICIES), 1, sharex=True, sharey=True)
    bins = [i * width for i in range(round(until / width) + 1)]
    for panel, (name, (policy, colour, _)) in zip(panels, POLICIES.items()):
        attempts = herd.herd(policy, server, until)
        failed = [attempt.when for attempt in attempts if not attempt.success]
        succeeded = [attempt.when for attempt in attempts if attempt.success]
        if failed:
            panel.hist(failed, bins, histtype="stepfilled", color=colour, alpha=0.35, label="refused")
        panel.hist(succeeded, bins, histtype="stepfilled", color=colour, label="connected")
        panel.set_title(name, loc="left", fontsize=11, fontweight="bold", color=colour)
        panel.set_ylabel(f"attempts in {'1 s' if width == 1 else f'{width * 1000:g} ms'}")
        panel.set_xlim(0, until)
        if back:
            panel.axvline(back, color="black", linewidth=1, linestyle=(0, (4, 3)))
            panel.legend(frameon=False, loc="upper right")
    return list(panels)


def _outage(figure: Any) -> None:
    panels = _panels(figure, herd.outage(60.0), 125.0, 1.0, 60.0)
    for panel in panels:
        panel.set_yscale("log")
        panel.set_ylim(0.8, 4000)
        panel.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    panels[0].annotate("the server is back", (60.0, 1500), (4, 0), textcoords="offset points", va="center")
    panels[-1].set_xlabel("time since the server went away, s")


def _restart(figure: Any) -> None:
    panels = _panels(figure, herd.outage(0.0), 1.2, 0.1, 0.0)
    for panel in panels:
        panel.set_ylim(0, 1050)
        panel.set_yticks([0, 250, 500, 750, 1000])
    panels[-1].set_xlabel("time since the links were lost, s")


def _flapping(figure: Any) -> None:
    axes = figure.subplots()
    for name, (policy, colour, style) in POLICIES.items():
        attempts = herd.attempts_of(policy(random.Random(1)), herd.flapping(), herd.FLAPPING)
        times = [when for when, _ in attempts]
        counts = range(1, len(times) + 1)
        axes.step(times, counts, where="post", color=colour, linestyle=style, linewidth=2)
        axes.annotate(
            f"{name}: {len(times)}",
            (times[-1], len(times)),
            (0, 5),
            textcoords="offset points",
            color=colour,
            ha="right",
            va="bottom",
        )
    axes.set_xlim(0, herd.FLAPPING)
    axes.set_ylim(0, 1350)
    axes.set_xlabel("time, s")
    axes.set_ylabel("attempts of one client, in all")


def svg(name: str, draw: Callable[[str], Any] = draw, family: str = "herd") -> str:
    """The figure as an element of HTML. The same figure is always the same text."""
    import matplotlib as mpl

    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        file = io.StringIO()
        draw(name).savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # Several figures stand in one page, so what they refer to needs a name of its own.
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{family}-{name}-", text)
    return re.sub(
        r'(<svg[^>]*?) height="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', text)
    )


class HerdPlot(Directive):
    """One of the figures."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        environment = self.state.document.settings.env
        environment.note_dependency(herd.__file__)
        if environment.app.builder.format != "html":
            return [nodes.paragraph("", " ".join(self.content))]
        label = nodes.Text(" ".join(self.content)).astext().replace('"', "&quot;")
        html = f'<div class="herd-plot" role="img" aria-label="{label}">{svg(self.arguments[0])}</div>'
        return [nodes.raw("", html, format="html")]


class HerdTable(Directive):
    """Load on a server that comes back, the worst of all seeds."""

    def run(self) -> list[nodes.Node]:
        head = ("", "the server was away", "most in any 100 ms", "most in any 1 s", "half are back", "all are back")
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (22, 18, 16, 16, 14, 14)), cols=len(head))
        group += nodes.thead("", _row(head))
        group += nodes.tbody("", *(_row(row) for row in self._rows()))
        return [nodes.table("", group)]

    def _rows(self) -> Iterable[tuple[str, ...]]:
        for (name, (policy, _, _)), seconds in itertools.product(list(POLICIES.items())[:2], herd.OUTAGES):
            found = herd.worst(herd.returning(policy, seconds, seed=seed) for seed in herd.SEEDS)
            yield (
                name,
                f"{seconds:g} s",
                f"{found.per_100ms}",
                f"{found.per_second}",
                f"after {found.median:.1f} s",
                f"after {found.last:.1f} s",
            )


def _row(cells: Iterable[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", nodes.Text(cell))) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("herd-plot", HerdPlot)
    app.add_directive("herd-table", HerdTable)
    return {"parallel_read_safe": True}
