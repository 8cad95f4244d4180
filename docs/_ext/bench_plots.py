"""Directive for what benchmarks/report.py has measured: ``bench-plot``.

``.. bench-plot:: ratios`` (or ``growth``) is a figure, drawn from docs/benchmarks/figures.json when the documentation
is built. Its content is the text for those who cannot see it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from herd_plots import STYLE, WIDTH, svg
from sphinx.application import Sphinx

FIGURES = Path(__file__).resolve().parents[1] / "benchmarks" / "figures.json"
OURS, PUBLIC = "katcp_tornado", "public"
# Okabe and Ito's palette; and each line has a marker and a style of its own.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
STYLES = [(BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", ":")]


def draw(name: str) -> Any:
    """The figure of this name, of matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, {"ratios": 4.6, "growth": 6.0}[name]), layout="constrained")
        {"ratios": _ratios, "growth": _growth}[name](figure, figures[name])
    return figure


def _ratios(figure: Any, runs: list[dict[str, Any]]) -> None:
    """For each workload a line with the bar and all that was found."""
    axes = figure.subplots()
    rows = runs[0]["figures"]
    for number, row in enumerate(rows):
        axes.plot([row["bar"]] * 2, [number - 0.38, number + 0.38], color=BLACK, linewidth=2)
        for contender, colour, marker, shift in ((OURS, BLUE, "o", -0.15), (PUBLIC, ORANGE, "s", 0.15)):
            found = [run["figures"][number]["contenders"].get(contender) for run in runs]
            ratios = [each[kind] for each in found if each for kind in ("ratio_of_minima", "median_of_ratios")]
            style = {"marker": marker, "linestyle": "none", "markersize": 5, "markerfacecolor": "none"}
            axes.plot(ratios, [number + shift] * len(ratios), color=colour, **style)
    axes.axvline(1.0, color="#777777", linewidth=1)
    axes.set_xscale("log")
    ticks = [0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(right=1.4)
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ours as a part of aiokatcp's, which is 1")
    handles = [
        axes.plot([], [], color=BLUE, marker="o", linestyle="none", markerfacecolor="none")[0],
        axes.plot([], [], color=ORANGE, marker="s", linestyle="none", markerfacecolor="none")[0],
        axes.plot([], [], color=BLACK, linewidth=2)[0],
    ]
    names = ["with the codec's inner module", "with its public interface", "the bar"]
    axes.legend(handles, names, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.3, 1.0))


def _growth(figure: Any, measured: dict[str, Any]) -> None:
    """Microseconds over size, a panel for each thing that grows."""
    rows = [row for row in measured["figures"] if row["us"] is not None]
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    for panel, axes in zip(panels, figure.subplots(2, 2).flat):
        titles = list(dict.fromkeys(row["title"] for row in rows if row["panel"] == panel))
        for title, (colour, marker, style) in zip(titles, STYLES):
            points = [(row["size"], row["us"]) for row in rows if (row["panel"], row["title"]) == (panel, title)]
            axes.plot(*zip(*points), color=colour, marker=marker, linestyle=style, markersize=5, label=title)
        axes.set_xscale("log")
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 1.0), max(high, 200.0) * 3)
        axes.set_xlabel(panel)
        axes.set_ylabel("µs each")
        axes.legend(frameon=False, loc="upper left", fontsize=9)
        axes.minorticks_off()


class BenchPlot(Directive):
    """One of the figures."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        environment = self.state.document.settings.env
        environment.note_dependency(str(FIGURES))
        text = " ".join(self.content)
        if environment.app.builder.format != "html":
            return [nodes.paragraph("", text)]
        label = text.replace('"', "&quot;")
        html = f'<div class="bench-plot" role="img" aria-label="{label}">{svg(self.arguments[0], draw, "bench")}</div>'
        return [nodes.raw("", html, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("bench-plot", BenchPlot)
    return {"parallel_read_safe": True}
