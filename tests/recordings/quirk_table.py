"""What real devices do that the guidelines do not say, and the table of it for the documentation.

Each quirk is tested by the functions whose names begin with its number: ``test_quirk_01_...``. The table is written
where the environment variable ``KATCP_TORNADO_QUIRK_TABLE`` says, at the end of a run:
``KATCP_TORNADO_QUIRK_TABLE=docs/explanation/quirks.csv pytest tests/recordings``.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from recordings.recording import NAMES

#: From recordings to the names that the devices have here, where they differ.
DEVICES = {"c_ska": "C", "katcp_python": "katcp-python", "tcpborphserver3": "tcpborphserver3"}


class Quirk(NamedTuple):
    """What devices do, and what the client does."""

    devices: str
    client: str


QUIRKS: dict[int, Quirk] = {
    1: Quirk(
        "The protocol version is the first line of the banner [aiokatcp, katcp-python, rust], the second "
        "[tcpborphserver3], the third [C] or the last, after feeder.katcp-protocol [kcsdplxd]. There is no "
        "katcp-device, but a kernel [C].",
        "is connected with the line katcp-protocol, wherever it stands; keeps the others in versions",
    ),
    2: Quirk(
        "Flags come in any order: 5.1-MIB [aiokatcp], 5.1-BIMT [katcp-python], 5.0-IM, 5.0-M.", "takes them as a set"
    ),
    3: Quirk(
        "v4 devices have #version and #build-state only; ?version-list is invalid [katcp-python], or ok 0 [C].",
        "is connected at once when it has both, 1 s after one of them; protocol is 4.0 without flags",
    ),
    4: Quirk(
        "Ids sent to a device without the flag I: not repeated [C], repeated [katcp-python], repeated in some messages "
        "only.",
        "sends none; if it did because of assume_protocol, replies find their requests by name",
    ),
    5: Quirk(
        "Odd ids ([0], [007], above 2147483647, [-1], [abc]) get no reply [aiokatcp], end the connection [C], or "
        "silence it for good [kcsdplxd].",
        "sends 1 to 2147483647, as plain numbers",
    ),
    6: Quirk(
        "A malformed line gets a #log, with a traceback [katcp-python], silence [C, rust], or a malformed reply: "
        "! fail [kcsdplxd], !?x invalid [C].",
        "sends no malformed line: ValueError at the call; counts malformed ones, logs them once a minute, goes on",
    ),
    7: Quirk(
        "An unknown request is invalid, but fail for kcsdplxd.", "raises InvalidReply, FailReply: as the device says"
    ),
    8: Quirk(
        "fail or invalid without a message, the reason in a #log before it [C, kcsdplxd]; with more than one argument, "
        "or a traceback of many lines [katcp-python, aiokatcp].",
        "raises all the same; the arguments are in reply",
    ),
    9: Quirk("A reply is neither ok, fail nor invalid: ``!odd-reply \\0\\n\\r\\_ 42`` [C].", "raises InvalidReply"),
    10: Quirk(
        "?sensor-list and ?sensor-value NAME know no regular expressions, and mean every sensor whose name begins so "
        "[C] or is this [kcsdplxd].",
        "leaves out what it has not asked for",
    ),
    11: Quirk(
        "The first #sensor-status comes before the reply to ?sensor-sampling [aiokatcp, katcp-python], a second after "
        "it [C], or not before the next change [rust, tcpborphserver3].",
        "asks for the value when the strategy is accepted and none has come",
    ),
    12: Quirk(
        "Only some strategies are known [C, katcp-python v4]; parameters are rounded, rewritten or left out in the "
        "reply; event is polled every second [C].",
        "is synced when the device says ok, whatever it repeats; a refusal is in failures and raised by synced",
    ),
    13: Quirk(
        "Lists of names in ?sensor-sampling are understood with the flag B only; duplicates are refused [aiokatcp]. A "
        "failed change leaves the old strategy.",
        "sends lists with the flag B only, each name once; after a refusal each by itself",
    ),
    14: Quirk(
        "Integers like 0x0007 and 0xfffffffd, ranges with 0, 2 or 4 numbers, the unit none [C]; floats like "
        "-4.00000000000000000e1, the time 0.000000 [rust]; nan; a value with the status unknown; times with 3, 6 or 7 "
        "digits.",
        "decodes them; what it cannot decode has the value None",
    ),
    15: Quirk("v4: all times are integers, in milliseconds.", "seconds, for readings, values, logs and periods"),
    16: Quirk(
        "A change of the sensors is told by #interface-changed, by #device-changed [katcp-python v4, C v5], with or "
        "without sensor-list.",
        "takes any of them",
    ),
    17: Quirk(
        "The removal of a sensor ends its sampling without a word, and it does not come back with the sensor "
        "[aiokatcp, katcp-python].",
        "subscribes anew when the sensor is back",
    ),
    18: Quirk(
        "#client-connected and #client-disconnected tell of others [aiokatcp, C], but #client-disconnected overloaded "
        "means us, and no #disconnect comes [C].",
        "hands them on; a link is lost when the device hangs up",
    ),
    19: Quirk(
        "#log comes in the middle of replies; ?log-level is for all clients, ?log-limit for this one [C].",
        "takes it for what it is: not an inform of the request; sets no level by itself",
    ),
    20: Quirk(
        "?halt and ?restart: #disconnect to everybody [aiokatcp, katcp-python]; reply and end of file for the one, "
        "#disconnect for the others [C]; end of file only [kcsdplxd]; a reply, and the device goes on [rust]; not "
        "known (restart) [aiokatcp, rust].",
        "the request has the reply that came, else ConnectionLost; connects anew when the link is lost",
    ),
    21: Quirk(
        "When it is terminated: #disconnect and end of file, with an empty line in between [katcp-python], end of file "
        "only [rust, kcsdplxd], or #disconnect every second until the client hangs up [C].",
        "hangs up after the first #disconnect",
    ),
    22: Quirk(
        "While a device winds down, connects succeed; no banner comes, but a reset [C].",
        "counts it as a failed attempt and tries again",
    ),
    23: Quirk(
        "One argument that is not UTF-8 makes the device deaf for every client, though its banner and #sensor-status "
        "go on [katcp-python on Python 3], or hang up [rust].",
        "sends str as UTF-8, and bytes as they are; RequestTimeout or ConnectionLost",
    ),
    24: Quirk(
        "Replies overtake each other, without ids too [aiokatcp, katcp-python]; or keep their order, and a slow "
        "request holds up everything, ?watchdog included [C].",
        "each finds its request; the watchdog waits for the deadlines of what is under way",
    ),
    25: Quirk(
        "100 requests under way hold up all others, of all clients [aiokatcp].",
        "each ends at its deadline, or with its late reply",
    ),
    26: Quirk(
        "A request that is too long gets a #log and no reply (16 MiB) [aiokatcp], or a reset (2 MiB) [katcp-python]; "
        "others take, and send, any length [C, rust].",
        "RequestTimeout, ConnectionLost; a line above limit breaks the link",
    ),
    27: Quirk(
        "A client that does not read is cut off without #disconnect, after 32 MiB [aiokatcp] or 4 MiB [katcp-python].",
        "does read, whatever its requests wait for; if its loop is held up: takes what has come, connects anew",
    ),
    28: Quirk(
        "The reply to a client that has closed its sending side is lost [katcp-python].",
        "does not meet this: it closes both sides",
    ),
    29: Quirk(
        "Lines end with ``\\n``, ``\\r\\n`` or ``\\r``; there are tabs, and blanks at the end.",
        "takes all of them, sends ``\\n`` only",
    ),
}


@dataclass
class Findings:
    """What the tests of one quirk have found: outcomes, and with what."""

    outcomes: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)


found = {number: Findings() for number in QUIRKS}


def note(report: pytest.TestReport) -> None:
    """Remember the outcome of a test that is named after a quirk."""
    match = re.search(r"::test_quirk_(\d\d)_", report.nodeid)
    if match is not None and (report.when == "call" or report.outcome != "passed"):
        findings = found[int(match[1])]
        findings.outcomes.append(report.outcome)
        findings.sources.update(value for name, value in report.user_properties if name == "source")  # type: ignore[misc]


def write(path: Path) -> None:
    """Write the table as CSV: what devices do, what the client does, how that is tested."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "what devices do", "what the client does", "tested with", "tests"])
        for number, quirk in QUIRKS.items():
            writer.writerow([number, *quirk, _sources(found[number].sources), _outcomes(found[number].outcomes)])


def _sources(sources: set[str]) -> str:
    """The devices whose recordings were played, and "script"."""
    if sources.issuperset(NAMES):
        sources = sources.difference(NAMES) | {"all recordings"}
    devices = {DEVICES.get(re.sub("_v[0-9].*", "", source), source) for source in sources}
    return ", ".join(sorted(devices, key=lambda device: (device == "script", device)))


def _outcomes(outcomes: list[str]) -> str:
    counts = [(outcomes.count(outcome), outcome) for outcome in ("passed", "failed", "skipped")]
    return ", ".join(f"{count} {outcome}" for count, outcome in counts if count) or "not run"
