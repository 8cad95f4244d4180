"""The tables of the report, made of its figures: the first line of each is its head."""

from __future__ import annotations

from typing import Any

from harness import PUBLIC
from measuring import FLOOR, OURS, THEIRS

TITLES = {
    "request": "one request at a time",
    "in-flight": "100 requests in flight",
    "informs": "an inform of a reply",
    "flood": "#sensor-status to a typed callback",
    "connect": "connect and close",
    "watch": "watch, per sensor",
    "restore": "restore, per sensor",
    "update": "update of a sensor",
}


def number(value: float | None) -> str:
    """With three digits, about."""
    if value is None:
        return "failed"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def of(figures: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Every table that there are figures for."""
    result = {}
    if "ratios" in figures:
        result["ratios"] = _ratios(figures["ratios"], OURS)
        result["public"] = _ratios(figures["ratios"], PUBLIC)
    if "floor" in figures:
        result["floor"] = _floor(figures["floor"]["figures"])
    if "growth" in figures:
        result["growth"] = _growth(figures["growth"]["figures"])
    if "profile" in figures:
        result["profile"] = _profile(figures["profile"]["figures"])
    if "latency" in figures:
        result["latency"] = _latency(figures["latency"]["figures"])
        result["chunk"] = _chunk(figures["latency"]["figures"])
        result["pieces"] = _pieces(figures["latency"]["figures"])
        result["turns"] = _turns(figures["latency"]["figures"])
    if "instructions" in figures:
        result["instructions"] = _instructions(figures["instructions"]["figures"])
    if "katcp" in figures:
        result["katcp"] = _katcp(figures["katcp"])
    return result


def machine(figures: dict[str, Any]) -> str:
    """Place and time of the measurement, as a list."""
    measured = [(part, each) for part, found in figures.items() for each in (found if part == "ratios" else [found])]
    measured.sort(key=lambda pair: pair[1]["time"])
    versions: dict[str, str] = {}
    for _, each in measured:
        versions.update(each["versions"])
    names = [versions.pop("python", "?"), *(f"{name} {version}" for name, version in versions.items())]
    ended = []
    for part, each in measured:
        name = {"katcp": "katcp-python", "ratios": f"ratios ({each['runs']} runs)"}.get(part, part)
        quick = " (a quick look)" if each["quick"] else ""
        ended.append(f"{name} {each['time'].replace(' UTC', '')}, {each['load']}{quick}")
    lines = [measured[-1][1]["machine"], ", ".join(names), "Ended, UTC, at a load of: " + "; ".join(ended)]
    return "".join(f"- {line}.\n" for line in lines)


def _ratios(runs: list[dict[str, Any]], name: str) -> list[list[str]]:
    kinds = ["minima", "median", "2nd: minima", "2nd: median"]
    lines = [["per operation", "ours", "aiokatcp", "unit", *kinds, "bar", ""]]
    for rows in zip(*(run["figures"] for run in runs)):
        title, unit, bar = rows[0]["title"], rows[0]["unit"], rows[0]["bar"]
        found = [row["contenders"] for row in rows if name in row["contenders"]]
        if not found:
            lines.append([title, *["failed"] * 2, unit, *[""] * len(kinds), f"{bar:.2f}", ""])
            continue
        least = [min(each[who]["least"] for each in found) for who in (name, THEIRS)]
        ratios = [each[name][kind] for each in found for kind in ("ratio_of_minima", "median_of_ratios")]
        cells = [f"{ratio:.2f}" for ratio in ratios] + [""] * (len(kinds) - len(ratios))
        lines.append([title, *map(number, least), unit, *cells, f"{bar:.2f}", _verdict(ratios, bar)])
    return lines


def _verdict(ratios: list[float], bar: float) -> str:
    over = [round((ratio / bar - 1) * 100) for ratio in ratios if ratio > bar]
    if not over:
        return "held"
    by = f"{max(over)} %" if min(over) == max(over) else f"{min(over)} to {max(over)} %"
    return f"over by {by}" if len(over) == len(ratios) else f"{len(over)} of {len(ratios)} over, {by}"


def _floor(rows: list[dict[str, Any]]) -> list[list[str]]:
    lines = [
        ["per operation", "floor, us", "ours", "aiokatcp", "ours / floor", "aiokatcp / floor", "ours above it, us"]
    ]
    for row in rows:
        found = row["contenders"]
        if FLOOR not in found:
            lines.append([row["title"], "failed", *[""] * 5])
            continue
        floor, ours, theirs = (found[who]["least"] for who in (FLOOR, OURS, THEIRS))
        cells = [f"{floor:.3f}", number(ours), number(theirs), number(ours / floor), number(theirs / floor)]
        lines.append([row["title"], *cells, number(ours - floor)])
    return lines


def _growth(rows: list[dict[str, Any]]) -> list[list[str]]:
    lines = [["what grows", "measured", "sizes", "us", "last to least"]]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        found = [row for row in rows if row["workload"] == workload]
        last = found[-1]
        least = min((row["us"] for row in found if row["us"] is not None), default=None)
        sizes = " / ".join(f"{row['size']:,}" for row in found)
        costs = " / ".join(number(row["us"]) for row in found)
        if least is None or last["us"] is None:
            ratio = ""
        elif last["panel"] == "bytes of a message":
            ratio = f"{last['us'] / last['size'] * 1000:.1f} us per kB"
        else:
            ratio = f"{last['us'] / least:.2f}"
        lines.append([last["panel"], last["title"], sizes, costs, ratio])
    return lines


def _profile(rows: list[dict[str, Any]]) -> list[list[str]]:
    lines = [["", *(row["workload"] for row in rows)], ["us per operation", *(number(row["us"]) for row in rows)]]
    for part in rows[0]["shares"]:
        shares = [row["shares"][part] for row in rows]
        if max(shares) >= 0.01:
            lines.append([part, *(f"{share:.0%}".replace("%", " %") if share >= 0.005 else "" for share in shares)])
    return lines


def _latency(figures: dict[str, Any]) -> list[list[str]]:
    lines = [["informs a second", "received", "requests", "median, ms", "99 %, ms", "longest, ms", "CPU"]]
    for row in figures["requests"]:
        times = [f"{row[name]:.2f}" for name in ("median", "most", "longest")]
        counts = [f"{row['asked']:,}", f"{row['received']:,.0f}", f"{row['requests']:,}"]
        lines.append([*counts, *times, f"{row['cpu']:.0%}".replace("%", " %")])
    return lines


def _chunk(figures: dict[str, Any]) -> list[list[str]]:
    lines = [[f"a chunk of {figures['chunk'] // 1024} KiB", "messages", "least, ms", "median, ms", "longest, ms"]]
    for row in figures["chunks"]:
        times = [f"{row[name]:.2f}" for name in ("least", "median", "longest")]
        lines.append([row["title"], f"{row['messages']:,}", *times])
    return lines


def _pieces(figures: dict[str, Any]) -> list[list[str]]:
    head = ["a reply of so many bytes, in pieces of 4,096", "median, ms", "without TCP_QUICKACK, ms"]
    rows = [[f"{row['size']:,}", *(f"{row[name]:.2f}" for name in ("median", "delayed"))] for row in figures["pieces"]]
    return [head, *rows]


def _turns(figures: dict[str, Any]) -> list[list[str]]:
    head = ["the longest turn of the loop", "sensors", "least of five, ms", "median, ms", "longest collection, ms"]
    times = [[f"{row[name]:.1f}" for name in ("least", "own", "collection")] for row in figures["turns"]]
    return [head, *([row["title"], f"{row['sensors']:,}", *cells] for row, cells in zip(figures["turns"], times))]


def _instructions(figures: dict[str, Any]) -> list[list[str]]:
    if "failure" in figures:
        return [["per operation", "instructions"], ["not counted", figures["failure"]]]
    lines = [["instructions per operation", "floor", "ours", "aiokatcp", "ours / aiokatcp"]]
    for row in figures["rows"]:
        counts = [f"{row[who]:,.0f}" if who in row else "" for who in (FLOOR, OURS, THEIRS)]
        lines.append([TITLES[row["workload"]], *counts, f"{row[OURS] / row[THEIRS]:.2f}"])
    return lines


def _katcp(measured: dict[str, Any]) -> list[list[str]]:
    figures = measured["figures"]
    if "failure" in figures:
        return [["per operation", "katcp-python"], ["not measured", figures["failure"]]]
    versions = figures["versions"]
    name = f"katcp {versions['katcp']}, tornado {versions['tornado']}, Python {versions['python']}, us"
    lines = [["per operation", name, "ours, us", "ratio"]]
    for row in figures["rows"]:
        theirs, ours = row["katcp"], row[OURS]
        lines.append([TITLES[row["workload"]], number(theirs), number(ours), f"{ours / theirs:.3f}"])
    return lines
