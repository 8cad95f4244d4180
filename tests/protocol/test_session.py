"""One conversation, without a loop: bytes in, bytes out."""

from __future__ import annotations

from typing import Any, Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katcp_tornado import DeviceDisconnected, LineTooLong, Message, ProtocolError, ReplyTooLarge, WriteBufferFull
from katcp_tornado.protocol.counters import Counters
from katcp_tornado.protocol.session import (
    CROWD,
    GREETING_LINE,
    GREETING_TOTAL,
    MAX_TEXT,
    MAX_VERSIONS,
    MAX_WORDS,
    Session,
)
from katcp_tornado.wire.codec import RawMessage
from katcp_tornado.wire.version import V4, ProtocolFlags

V5 = b"#version-connect katcp-protocol 5.1-MIB\n"
NO_IDS = b"#version-connect katcp-protocol 5.0-M\n"


class Entry:
    """A request, as a session sees it."""

    def __init__(self, name: str, on_inform: Optional[Callable[[Message], Any]] = None) -> None:
        self.name = name.encode()
        self.mid: Optional[int] = None
        self.sent = False
        self.line = b""
        self.size = 0
        self.weighed = 0
        self.mark = 0
        self.deadline: Optional[float] = None
        self.on_inform = on_inform
        self.informs: list[Message] = []
        self.reply: Optional[Message] = None
        self.error: Optional[BaseException] = None
        self.session: Any = None
        self.abandoned = False
        self.watched = False

    def done(self) -> bool:
        return self.abandoned or self.reply is not None or self.error is not None

    def watch(self) -> None:
        self.watched = True

    def answer(self, raw: RawMessage) -> None:
        assert not self.done()
        self.reply = Message.wrap(raw)

    def fail(self, exc: BaseException) -> None:
        assert not self.done()
        self.error = exc

    overflow = fail

    def abandon(self) -> None:
        self.session.abandon(self)


class Owner:
    """A connection that only remembers."""

    def __init__(self, *, limit: int = 1 << 20, max_reply: int = 1 << 20, max_queue: int = 1 << 20) -> None:
        self.informs: dict[int, dict[bytes, tuple[Callable[[RawMessage], Any], ...]]] = {4: {}, 5: {}}
        self.counters = Counters()
        self.sent: list[bytes] = []
        self.urgent: list[bool] = []
        self.room: Optional[int] = None
        self.connected = 0
        self.protocols: list[ProtocolFlags] = []
        self.greeted = 0
        self.lost: list[Exception] = []
        self.malformed: list[ValueError] = []
        self.unknown: list[str] = []
        self.session = Session(self, self.send, self.informs, self.counters, limit, max_reply, max_queue)

    def send(self, data: bytes, urgent: bool) -> None:
        if self.room is not None and len(data) > self.room:
            raise WriteBufferFull("full")
        self.sent.append(data)
        self.urgent.append(urgent)

    def session_greeted(self) -> None:
        self.greeted += 1

    def session_connected(self) -> None:
        assert self.session.protocol is not None
        self.connected += 1
        self.protocols.append(self.session.protocol)

    def session_corrected(self) -> None:
        pass

    def session_lost(self, cause: Exception) -> None:
        self.lost.append(cause)
        self.session.close()

    def session_malformed(self, error: ValueError) -> None:
        self.malformed.append(error)

    def session_unknown(self, raw: RawMessage) -> None:
        self.unknown.append(str(Message.wrap(raw)))

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        callback(*args)

    def listen(self, name: str) -> list[str]:
        """Collect the informs of a name, as text."""
        heard: list[str] = []
        for informs in self.informs.values():
            informs[name.encode()] = (
                *informs.get(name.encode(), ()),
                lambda raw: heard.append(str(Message.wrap(raw))),
            )
        return heard

    def request(self, name: str, *args: bytes, **kwargs: Any) -> Entry:
        entry = Entry(name, **kwargs)
        entry.session = self.session
        self.session.send(entry, list(args))
        return entry


def connected(greeting: bytes = V5, **limits: int) -> Owner:
    owner = Owner(**limits)
    owner.session.receive(greeting)
    assert owner.connected == 1
    return owner


# Greetings


@pytest.mark.parametrize(
    "banner",
    [
        V5,
        b"#version-connect katcp-library x\n" + V5,
        b"#version-connect c-peer 1 2\n#version-connect katcp-library x y\n" + V5 + b"#version-connect kernel 6.1\n",
        b"#version-connect feeder.katcp-protocol 4.9\n" + V5,
        b"\n\r\n" + V5.replace(b"\n", b"\r\n"),
        b"#log info 1 a b\n" + V5,
    ],
)
def test_the_protocol_line_counts_wherever_it_stands(banner: bytes) -> None:
    owner = connected(banner)
    assert owner.session.protocol == ProtocolFlags(5, 1, frozenset("MIB"))
    assert owner.session.versions["katcp-protocol"] == ("5.1-MIB",)
    assert owner.malformed == []


@pytest.mark.parametrize("text", ["6.0-M", "3.0", "5", "", "five", "5.x", "-5.0", "5.0-M!", "5.0 -M".replace(" ", "")])
def test_a_version_that_we_do_not_speak(text: str) -> None:
    owner = Owner()
    owner.session.receive(b"#version-connect katcp-protocol " + (text.encode() or b"\\@") + b"\n")
    if text == "5.0-M":
        assert owner.connected == 1
        return
    assert owner.connected == 0
    (cause,) = owner.lost
    assert isinstance(cause, ProtocolError)
    assert cause.version == text


def test_no_version_at_all_is_a_protocol_error() -> None:
    owner = Owner()
    owner.session.receive(b"#version-connect katcp-protocol\n")
    (cause,) = owner.lost
    assert isinstance(cause, ProtocolError)
    assert cause.version is None


def test_a_second_protocol_line_is_ignored() -> None:
    owner = connected()
    owner.session.receive(b"#version-connect katcp-protocol 9.9\n")
    assert owner.lost == []
    assert owner.connected == 1
    assert owner.session.protocol == ProtocolFlags(5, 1, frozenset("MIB"))


@pytest.mark.parametrize("lines", [b"#version a-1.0\n#build-state b-2\n", b"#build-state b-2\n#version a-1.0\n"])
def test_v4(lines: bytes) -> None:
    owner = connected(lines)
    assert owner.session.protocol == V4
    assert owner.session.versions == {"version": ("a-1.0",), "build-state": ("b-2",)}


def test_half_a_v4_greeting_is_concluded_by_the_owner() -> None:
    owner = Owner()
    owner.session.out_of_patience()
    assert owner.connected == 0  # nothing has come
    owner.session.receive(b"#version a-1.0\n")
    owner.session.receive(b"#version a-1.0\n")
    assert (owner.connected, owner.greeted) == (0, 1)
    owner.session.out_of_patience()
    assert owner.session.protocol == V4
    owner.session.out_of_patience()
    assert owner.connected == 1


def test_a_protocol_line_corrects_a_v4_guess() -> None:
    owner = connected(b"#version a\n#build-state b\n")
    owner.session.receive(V5)
    assert owner.connected == 1
    assert owner.session.protocol == ProtocolFlags(5, 1, frozenset("MIB"))


def test_a_protocol_line_right_behind_a_v4_greeting_is_all_that_counts() -> None:
    owner = Owner()
    owner.session.receive(b"#version a\n#build-state b\n" + V5)
    assert owner.protocols == [ProtocolFlags(5, 1, frozenset("MIB"))]


def test_informs_are_decoded_for_the_version_of_the_connection() -> None:
    owner = Owner()
    owner.informs[4][b"x"] = (lambda raw: heard.append(4),)
    owner.informs[5][b"x"] = (lambda raw: heard.append(5),)
    heard: list[int] = []
    owner.session.receive(b"#x\n#version a\n#x\n#build-state b\n#x\n")
    assert heard == [5, 5, 4]


def test_versions_are_bounded() -> None:
    owner = connected()
    for n in range(2 * MAX_VERSIONS):
        owner.session.receive(b"#version-connect name%d 1\n" % n)
    owner.session.receive(b"#version-connect name0 2\n#version-connect\n")
    assert len(owner.session.versions) == MAX_VERSIONS
    assert owner.session.versions["name0"] == ("2",)


def test_a_version_that_is_assumed_is_corrected_by_the_device() -> None:
    owner = Owner()
    owner.session.assume(ProtocolFlags(5, 0, frozenset("I")))
    assert owner.connected == 1
    old = owner.request("help")
    owner.session.receive(NO_IDS)
    new = owner.request("add")
    assert owner.sent == [b"?help[1]\n", b"?add\n"]
    owner.session.receive(b"#help a\n!help ok 1\n!add ok 3\n")
    assert old.reply == Message.reply("help", "ok", 1)
    assert old.informs == [Message.inform("help", "a")]
    assert new.reply == Message.reply("add", "ok", 3)


def test_a_device_that_never_sends_its_version_says_by_a_reply_that_it_has_no_ids() -> None:
    for answer in (b"#echo a\n!echo ok 1\n", b"!echo ok 1\n"):
        owner = Owner()
        owner.session.assume(ProtocolFlags(5, 0, frozenset("MI")))
        given_up, first, other, second = (owner.request(name) for name in ("hold", "echo", "add", "echo"))
        given_up.abandoned = True
        assert owner.session.abandon(given_up) is True
        owner.session.receive(b"#tick\n!add[3] ok\n")  # nothing that waits has this name
        assert owner.session.protocol == ProtocolFlags(5, 0, frozenset("MI")) and other.reply is not None
        owner.session.receive(answer)
        assert str(first.reply) == "!echo ok 1" and second.reply is None
        assert len(first.informs) == answer.count(b"#")
        assert owner.session.protocol == ProtocolFlags(5, 0, frozenset("M"))
        owner.session.receive(b"!hold ok\n!echo ok 2\n")
        assert str(second.reply) == "!echo ok 2" and owner.counters.unmatched_replies == 1
        owner.request("add")
        assert owner.sent[-1] == b"?add\n"
        owner.session.receive(V5)  # the greeting has the last word
        assert owner.request("add").mid is not None


def test_replies_with_ids_still_count_after_such_a_correction() -> None:
    owner = Owner()
    owner.session.assume(ProtocolFlags(5, 0, frozenset("I")))
    first, second = owner.request("help"), owner.request("help")
    owner.session.receive(NO_IDS)
    owner.session.receive(b"!help[1] ok 1\n!help[2] ok 2\n")
    assert first.reply == Message.reply("help", "ok", 1, mid=1)
    assert second.reply == Message.reply("help", "ok", 2, mid=2)


# Limits


def test_a_long_line_before_the_version() -> None:
    for line in (b"#x " + b"a" * (GREETING_LINE - 2), b"#x " + b"a" * (GREETING_LINE - 2) + b"\n"):
        owner = Owner()
        owner.session.receive(line)
        assert isinstance(owner.lost[0], LineTooLong), line[-5:]


def test_a_line_of_just_the_limit_is_fine_before_the_version() -> None:
    owner = Owner()
    line = b"#x " + b"a" * (GREETING_LINE - 3)
    assert len(line) == GREETING_LINE
    owner.session.receive(line)
    assert owner.lost == []
    owner.session.receive(b"\r\n" + V5)
    assert owner.connected == 1


def test_a_long_line_after_the_version_in_the_same_chunk() -> None:
    owner = Owner(limit=1 << 20)
    heard = owner.listen("x")
    owner.session.receive(V5 + b"#x " + b"a" * (2 * GREETING_LINE) + b"\n")
    assert (owner.connected, owner.lost, len(heard)) == (1, [], 1)


def test_too_many_bytes_without_a_version() -> None:
    owner = Owner()
    line = b"#x " + b"a" * 1020 + b"\n"
    for _ in range(GREETING_TOTAL // len(line)):
        owner.session.receive(line)
    assert owner.lost == []
    owner.session.receive(line)
    assert isinstance(owner.lost[0], ProtocolError)
    assert owner.connected == 0


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("ended", [False, True])
def test_the_limit_is_exact(chunk: int, ended: bool) -> None:
    limit = 100
    for length, too_long in ((limit, False), (limit + 1, True)):
        owner = connected(limit=limit)
        heard = owner.listen("x")
        data = b"#x 1\n" + b"#x " + b"a" * (length - 3) + b"\n" * ended
        for start in range(0, len(data), chunk):
            if owner.session.alive:
                owner.session.receive(data[start : start + chunk])
        assert bool(owner.lost) is too_long
        assert heard[0] == "#x 1"  # what stood before the line has been delivered
        assert len(heard) == (2 if ended and not too_long else 1)


# Requests with ids


def test_ids_match_whatever_the_order() -> None:
    owner = connected()
    first, second = owner.request("help"), owner.request("add", b"1 2", b"")
    assert owner.sent == [b"?help[1]\n", b"?add[2] 1\\_2 \\@\n"]
    assert owner.urgent == [True, False]  # the second may wait for the others of its turn
    owner.session.receive(b"#help[1] a\n!add[2] ok\n#help[1] b\n!help[1] ok 2\n")
    assert second.reply == Message.reply("add", "ok", mid=2)
    assert first.reply == Message.reply("help", "ok", 2, mid=1)
    assert [str(i) for i in first.informs] == ["#help[1] a", "#help[1] b"]
    assert (owner.counters.requests, owner.counters.replies, owner.counters.informs) == (2, 2, 3)
    assert list(owner.session.pending()) == []


def test_what_no_request_waits_for_is_counted_and_dropped() -> None:
    owner = connected()
    heard = owner.listen("help")
    entry = owner.request("help")
    owner.session.receive(b"!help ok\n!help[7] ok\n#help[7] x\n!other[2] ok\n")
    assert owner.counters.unmatched_replies == 4
    assert (heard, entry.done()) == ([], False)
    owner.session.receive(b"#help unasked\n!help[1] ok\n")
    assert heard == ["#help unasked"]  # asynchronous informs may have any name
    assert entry.informs == []
    assert entry.reply is not None


def test_a_reply_comes_only_once() -> None:
    owner = connected()
    entry = owner.request("help")
    owner.session.receive(b"!help[1] ok 1\n!help[1] ok 2\n")
    assert entry.reply == Message.reply("help", "ok", 1, mid=1)
    assert owner.counters.unmatched_replies == 1


def test_an_abandoned_request_with_an_id_leaves_nothing() -> None:
    owner = connected()
    entry, other = owner.request("help"), owner.request("help")
    entry.abandoned = True
    assert owner.session.abandon(entry) is False
    assert owner.session.abandon(entry) is False
    assert list(owner.session.pending()) == [other]
    owner.session.receive(b"#help[1] x\n!help[1] ok late\n!help[2] ok\n")
    assert owner.counters.unmatched_replies == 2
    assert other.reply is not None
    assert entry.reply is None


def test_the_reply_of_one_that_was_given_up_without_a_word_is_dropped() -> None:
    owner = connected()
    entry, other = owner.request("help"), owner.request("help")
    entry.abandoned = True
    owner.session.receive(b"#help[1] x\n!help[1] ok late\n!help[2] ok\n")
    assert (owner.counters.unmatched_replies, owner.counters.replies) == (2, 1)
    assert entry.reply is None and entry.informs == []
    assert other.reply is not None
    assert list(owner.session.pending()) == []


def test_an_inform_for_one_that_was_given_up_without_a_word_lets_go_of_what_it_holds() -> None:
    owner = connected()
    entry = owner.request("help")
    owner.session.receive(b"#help[1] x\n")
    assert len(entry.informs) == 1
    entry.abandoned = True
    owner.session.receive(b"#help[1] y\n")
    assert list(owner.session.pending()) == []
    owner.session.receive(b"#help[1] z\n!help[1] ok 3\n")
    assert owner.counters.unmatched_replies == 3 and len(entry.informs) == 1


@pytest.mark.parametrize("alive", [0, 1, 5, 40])
def test_those_that_were_given_up_without_a_word_do_not_pile_up(alive: int) -> None:
    owner = connected()
    kept = [owner.request("hold") for _ in range(alive)]
    most = 0
    for _ in range(1000):
        owner.request("help").abandoned = True
        most = max(most, len(list(owner.session.pending())))
    assert most <= alive + alive + CROWD + 1
    assert [entry for entry in owner.session.pending() if not entry.done()] == kept
    for entry in kept:
        owner.session.receive(b"!hold[%d] ok\n" % entry.mid)  # type: ignore[str-format]
        assert entry.reply is not None


def test_looking_for_them_costs_each_request_a_bounded_share() -> None:
    looked = 0

    class Counted(Entry):
        def done(self) -> bool:
            nonlocal looked
            looked += 1
            return super().done()

    owner = connected()
    for _ in range(500):
        owner.session.send(Counted("hold"), [])
    looked = 0
    for _ in range(1000):
        owner.session.send(Counted("help"), [])
    assert looked <= 2 * 1000


def test_one_of_an_earlier_conversation_is_not_taken_for_one_of_this() -> None:
    earlier, owner = connected().request("help"), connected()
    entry = owner.request("help")
    assert entry.mid == earlier.mid
    earlier.abandoned = True
    assert owner.session.abandon(earlier) is False
    assert list(owner.session.pending()) == [entry]


def test_whom_the_session_wants_to_be_told_of() -> None:
    """Without ids another request waits for this one; with ids nobody does."""
    assert connected(NO_IDS).request("help").watched
    assert not connected().request("help").watched
    assumed = Owner()
    assumed.session.assume(ProtocolFlags(5, 0, frozenset("I")))
    assert assumed.request("help").watched  # there may be no ids after all


def test_ids_wrap_and_skip_those_in_use() -> None:
    owner = connected()
    held = owner.request("hold")
    owner.session._next_mid = 2**31 - 1
    owner.request("a")
    owner.request("b")
    assert owner.sent == [b"?hold[1]\n", b"?a[2147483647]\n", b"?b[2]\n"]
    assert held.mid == 1


# Requests without ids


def test_requests_of_one_name_go_one_at_a_time() -> None:
    owner = connected(NO_IDS)
    entries = [owner.request("echo", b"%d" % n) for n in range(3)]
    other = owner.request("help")
    assert owner.sent == [b"?echo 0\n", b"?help\n"]
    owner.session.receive(b"!echo ok 0\n")
    assert owner.sent[2:] == [b"?echo 1\n"]
    owner.session.receive(b"#help x\n!help ok 1\n#echo y\n!echo fail no\n!echo ok 2\n")
    assert [str(e.reply) for e in entries] == ["!echo ok 0", "!echo fail no", "!echo ok 2"]
    assert [len(e.informs) for e in entries] == [0, 1, 0]
    assert str(other.informs[0]) == "#help x"
    assert list(owner.session.pending()) == []
    assert owner.counters.requests == 4


def test_a_late_reply_never_goes_to_another_request() -> None:
    owner = connected(NO_IDS)
    first, second = owner.request("echo", b"1"), owner.request("echo", b"2")
    first.abandoned = True
    assert owner.session.abandon(first) is True
    assert owner.session.owes(first)
    third = owner.request("echo", b"3")
    assert owner.sent == [b"?echo 1\n"]
    owner.session.receive(b"#echo late\n!echo ok 1\n")
    assert not owner.session.owes(first)
    assert owner.sent == [b"?echo 1\n", b"?echo 2\n"]
    assert owner.counters.unmatched_replies == 2
    owner.session.receive(b"!echo ok 2\n!echo ok 3\n")
    assert (str(second.reply), str(third.reply)) == ("!echo ok 2", "!echo ok 3")
    assert second.informs == []


def test_given_up_in_the_queue_and_its_turn_comes_before_the_word() -> None:
    owner = connected(NO_IDS, max_queue=30)
    first, second = owner.request("echo", b"1"), owner.request("echo", b"2" * 20)
    second.abandoned = True
    owner.session.receive(b"!echo ok 1\n")
    assert first.reply is not None
    assert owner.sent == [b"?echo 1\n"]
    assert owner.session.abandon(second) is False
    assert list(owner.session.pending()) == []
    third, fourth = owner.request("echo", b"3"), owner.request("echo", b"4" * 20)  # its bytes have been given back
    owner.session.receive(b"!echo ok 3\n!echo ok 4\n")
    assert third.reply is not None and fourth.reply is not None


def test_abandoned_before_it_was_sent() -> None:
    owner = connected(NO_IDS, max_queue=30)
    first, second = owner.request("echo", b"1"), owner.request("echo", b"2" * 20)
    with pytest.raises(WriteBufferFull):
        owner.request("echo", b"3" * 20)
    second.abandoned = True
    assert owner.session.abandon(second) is False
    third = owner.request("echo", b"3" * 20)  # its bytes have been given back
    owner.session.receive(b"!echo ok 1\n")
    assert owner.sent == [b"?echo 1\n", b"?echo " + b"3" * 20 + b"\n"]
    assert first.reply is not None
    assert not third.done()


def test_a_full_buffer_refuses_a_request_whose_turn_has_come() -> None:
    owner = connected(NO_IDS)
    owner.request("echo", b"1")
    second, third = owner.request("echo", b"2" * 20), owner.request("echo", b"3")
    owner.room = 15
    owner.session.receive(b"!echo ok 1\n")
    assert isinstance(second.error, WriteBufferFull)
    assert not second.sent
    assert owner.sent[-1] == b"?echo 3\n"
    assert third.sent


def test_a_refused_request_leaves_nothing() -> None:
    for greeting in (V5, NO_IDS):
        owner = connected(greeting)
        owner.room = 3
        with pytest.raises(WriteBufferFull):
            owner.request("help")
        assert list(owner.session.pending()) == []
        assert owner.counters.requests == 0
        owner.room = None
        entry = owner.request("help")
        assert entry.sent


def test_an_id_from_a_device_without_ids_matches_nothing() -> None:
    owner = connected(NO_IDS)
    entry = owner.request("help")
    owner.session.receive(b"!help[1] ok\n#help[1] x\n")
    assert owner.counters.unmatched_replies == 2
    assert not entry.done()


# Informs


def test_asynchronous_informs() -> None:
    owner = connected()
    first, second = owner.listen("log"), owner.listen("log")
    owner.session.receive(b"#log info 1 a b\n#other\n")
    assert first == second == ["#log info 1 a b"]
    assert owner.unknown == ["#other"]


def test_requests_to_us_are_nobodys() -> None:
    owner = connected()
    owner.session.receive(b"?help[3]\n")
    assert owner.unknown == ["?help[3]"]
    assert owner.sent == []  # rubbish gets no answer


def test_on_inform_gets_them_as_they_come() -> None:
    for greeting, mark in ((V5, b"[1]"), (NO_IDS, b"")):
        owner = connected(greeting, max_reply=10)
        got: list[Message] = []
        entry = owner.request("help", on_inform=got.append)
        owner.session.receive(b"#help%b a\n#help%b b\n#help%b c\n" % (mark, mark, mark))
        assert [m.arguments for m in got] == [[b"a"], [b"b"], [b"c"]]
        owner.session.receive(b"!help%b ok\n" % mark)
        assert entry.informs == []
        assert entry.reply is not None


def test_informs_in_a_row_and_what_comes_between() -> None:
    owner = connected()
    heard = owner.listen("log")
    first, second = owner.request("help"), owner.request("help")
    owner.session.receive(
        b"#help[1] a\n#help[1] b\n#log x\n#help[1] c\n#help[2] d\n#help[2] e\n#hell[2] ?\n#help[2] f\n"
        b"#help[1] g\n!help[1] ok\n#help[1] late\n#help[2] h\n!help[2] ok\n#help[2] late\n"
    )
    assert [inform.arguments for inform in first.informs] == [[b"a"], [b"b"], [b"c"], [b"g"]]
    assert [inform.arguments for inform in second.informs] == [[b"d"], [b"e"], [b"f"], [b"h"]]
    assert heard == ["#log x"]
    assert owner.unknown == ["#hell[2] ?"]
    assert owner.counters.unmatched_replies == 3  # the wrong name, and the two that came late


def test_the_most_of_a_reply_is_exact_within_a_chunk() -> None:
    for most in range(10, 60):
        owner = connected(max_reply=most)
        entry = owner.request("help")
        owner.session.receive(b"#help[1] abc\n" * 5 + b"!help[1] ok\n")
        assert (entry.reply is None) == (most < 5 * len("#help abc\n"))


def test_receive_tells_whether_the_device_has_more_to_send() -> None:
    owner = connected()
    owner.request("help")
    assert not owner.session.receive(b"#help[1] a\n")  # with ids: only within a line
    assert owner.session.receive(b"#help[1]")
    assert not owner.session.receive(b" b\n!help[1] ok\n")
    owner = connected(NO_IDS)
    owner.request("help")
    assert owner.session.receive(b"#help a\n")
    assert not owner.session.receive(b"!help ok\n")
    assert owner.session.receive(b"#log")
    assert not owner.session.receive(b" x\n")


def test_too_many_informs_for_one_request() -> None:
    owner = connected(max_reply=1000)
    entry, other = owner.request("help"), owner.request("help")
    for _ in range(1000):
        owner.session.receive(b"#help[1]\n")  # even empty ones count
    assert isinstance(entry.error, ReplyTooLarge)
    assert owner.lost == []
    owner.session.receive(b"#help[1] more\n!help[1] ok\n!help[2] ok\n")
    assert other.reply is not None


def test_too_many_informs_without_ids_end_the_conversation() -> None:
    owner = connected(NO_IDS, max_reply=100)
    entry = owner.request("help")
    owner.session.receive(b"#help " + b"a" * 200 + b"\n#log x\n")
    assert isinstance(entry.error, ReplyTooLarge)
    assert isinstance(owner.lost[0], ReplyTooLarge)
    assert owner.counters.informs == 2  # the version and the one that was too much: the rest was not looked at


def test_disconnect_lets_the_rest_of_the_chunk_through() -> None:
    owner = connected()
    heard = owner.listen("log")
    goodbye = owner.listen("disconnect")
    entry = owner.request("help")
    owner.session.receive(b"#disconnect going\\_home\n\n#log x\n!help[1] ok\n")
    assert heard == ["#log x"]
    assert goodbye == ["#disconnect going\\_home"]
    assert entry.reply is not None
    (cause,) = owner.lost
    assert isinstance(cause, DeviceDisconnected)
    assert cause.reason == "going home"


@pytest.mark.parametrize(("arguments", "reason"), [(b"", ""), (b" \\@", ""), (b" \xff\xc3\xa9\\e", "\\xff\xe9\x1b")])
def test_reasons(arguments: bytes, reason: str) -> None:
    owner = connected()
    owner.session.receive(b"#disconnect" + arguments + b"\n")
    assert isinstance(owner.lost[0], DeviceDisconnected)
    assert owner.lost[0].reason == reason
    assert str(owner.lost[0]).isprintable()


def test_a_callback_that_closes_stops_the_chunk() -> None:
    owner = connected()
    others = owner.listen("a")
    owner.informs[5][b"a"] += (lambda raw: owner.session.close(),)
    owner.informs[5][b"a"] += (lambda raw: others.append("after"),)
    entry = owner.request("help")
    owner.session.receive(b"#a 1\n#a 2\n!help[1] ok\nrubbish\n")
    assert others == ["#a 1", "after"]  # everybody hears of that inform, and nobody of the next
    assert entry.reply is None
    assert owner.malformed == []


def test_on_inform_that_closes_stops_the_chunk() -> None:
    owner = connected()
    entry = owner.request("help", on_inform=lambda message: owner.session.close())
    owner.session.receive(b"#help[1]\n!help[1] ok\n")
    assert entry.reply is None


# Rubbish


def test_malformed_lines_are_counted() -> None:
    owner = connected()
    heard = owner.listen("x")
    owner.session.receive(b"#x 1\n?\n!bad[0]\n#x \\q\n\xff\xfe\n#x 2\n")
    assert len(owner.malformed) == owner.counters.malformed == 4
    assert heard == ["#x 1", "#x 2"]
    assert owner.sent == []


def test_lines_of_blanks_are_nothing() -> None:
    owner = connected()
    owner.session.receive(b"  \n\t\r\n \t \n\n")
    owner.session.receive(b" \n")
    assert owner.counters.malformed == 0
    owner.session.receive(b"  \n?\n")
    assert owner.counters.malformed == 1
    owner.session.receive(b"#x \\")
    owner.session.receive(b" \n")  # ends a line that is not blank
    assert owner.counters.malformed == 2


# Ends


def test_close_returns_who_gets_no_reply() -> None:
    owner = connected(NO_IDS)
    first, second, third = (owner.request("a") for _ in range(3))
    fourth = owner.request("b")
    first.abandoned = True
    owner.session.abandon(first)
    assert owner.session.close() == [second, third, fourth]
    assert (second.sent, fourth.sent) == (False, True)
    assert owner.session.close() == []
    assert not owner.session.alive


# Properties

_names = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
_arguments = st.lists(st.binary(max_size=12), max_size=4)
_informs = st.builds(lambda name, args: Message.inform(name, *args), _names, _arguments)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:])]


@given(st.lists(_informs, max_size=12), st.lists(st.integers(0, 10_000), max_size=12), st.integers(40, 200))
def test_any_chunking_gives_the_same_messages(messages: list[Message], cuts: list[int], limit: int) -> None:
    data = b"".join(map(bytes, messages))
    longest = max((len(bytes(message)) - 1 for message in messages), default=0)
    results = []
    for chunks in ([data], chunked(data, cuts), [data[i : i + 1] for i in range(len(data))]):
        owner = connected(limit=max(limit, longest))
        heard = [owner.listen(name) for name in sorted({message.name for message in messages})]
        for chunk in chunks:
            owner.session.receive(memoryview(bytearray(chunk)))
        results.append((heard, owner.counters.informs, [type(exc) for exc in owner.lost]))
    assert results[0] == results[1] == results[2]
    if not any(message.name in ("disconnect", "version-connect") for message in messages):
        assert sum(map(len, results[0][0])) == len(messages)


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_random_bytes_never_raise(chunks: list[bytes], greeted: bool) -> None:
    owner = Owner(limit=300, max_reply=200)
    if greeted:
        owner.session.receive(V5)
        owner.request("a")
    for chunk in chunks:
        if owner.session.alive:
            owner.session.receive(chunk)
    assert owner.session.alive is not bool(owner.lost)


@given(st.lists(st.sampled_from(["send a", "send b", "reply a", "reply b", "abandon"]), max_size=40), st.randoms())
def test_no_reply_ever_goes_to_another_request(steps: list[str], rng: Any) -> None:
    """A device without ids answers the requests of each name in order; each says which one it is."""
    owner = connected(NO_IDS)
    entries: dict[bytes, Entry] = {}
    seen = 0
    for number, step in enumerate(steps):
        verb, _, name = step.partition(" ")
        if verb == "send":
            entries[b"%d" % number] = owner.request(name, b"%d" % number)
        elif verb == "abandon":
            alive = [entry for entry in entries.values() if not entry.done()]
            if alive:
                entry = rng.choice(alive)
                entry.abandoned = True
                owner.session.abandon(entry)
        else:
            asked = [line for line in owner.sent[seen:] if line.startswith(b"?%b " % name.encode())]
            for line in asked[:1]:
                owner.sent.remove(line)
                owner.session.receive(b"!%b ok %b" % (name.encode(), line.split()[1]) + b"\n")
    for number, entry in entries.items():  # type: ignore[assignment]
        if entry.reply is not None:
            assert entry.reply.arguments == [b"ok", number]


def test_given_up_while_the_version_was_only_assumed() -> None:
    owner = Owner()
    owner.session.assume(ProtocolFlags(5, 0, frozenset("I")))
    first, second, third = (owner.request("echo") for _ in range(3))
    for entry in (first, second):
        entry.abandoned = True
        assert owner.session.abandon(entry) is True  # its reply may come without an id
    owner.session.receive(b"!echo[1] ok late\n")  # it came with its id after all
    owner.session.forget(second)
    assert list(owner.session.pending()) == [third]
    fourth = owner.request("echo")
    third.abandoned = True
    owner.session.abandon(third)
    owner.session.receive(NO_IDS + b"!echo ok third\n!echo ok fourth\n")
    assert str(fourth.reply) == "!echo ok fourth"
    assert owner.counters.unmatched_replies == 2


def test_given_up_a_moment_ago_among_many_while_the_version_was_only_assumed() -> None:
    """Its owner has not yet said so, and others are sent: its reply may come without an id all the same."""
    owner = Owner()
    owner.session.assume(ProtocolFlags(5, 0, frozenset("I")))
    others = [owner.request("hold") for _ in range(CROWD - 1)]
    first = owner.request("echo")
    first.abandoned = True
    second = owner.request("echo")
    assert owner.session.abandon(first) is True
    owner.session.receive(NO_IDS + b"!hold ok\n" * len(others) + b"!echo ok first\n!echo ok second\n")
    assert str(second.reply) == "!echo ok second"
    assert all(entry.reply is not None for entry in others)
    assert owner.counters.unmatched_replies == 1


def test_ids_that_were_assumed_rightly_leave_nothing() -> None:
    owner = Owner()
    owner.session.assume(ProtocolFlags(5, 0, frozenset("I")))
    entry = owner.request("echo")
    entry.abandoned = True
    owner.session.abandon(entry)
    owner.session.receive(V5)
    assert list(owner.session.pending()) == []
    assert owner.request("echo").mid == 2


def test_what_a_device_says_of_itself_is_kept_in_moderation() -> None:
    owner = connected()
    owner.session.receive(b"#version-connect big " + b"x" * 100_000 + b" y" * 1000 + b"\n")
    assert len(owner.session.versions["big"]) == MAX_WORDS - 1
    assert len(owner.session.versions["big"][0]) == MAX_TEXT
    owner.session.receive(b"#disconnect " + b"\\e" * 200_000 + b"\n")
    (cause,) = owner.lost
    assert isinstance(cause, DeviceDisconnected)
    assert cause.reason == "\x1b" * MAX_TEXT
    assert len(str(cause)) < 10_000
    assert str(cause).isprintable()


@pytest.mark.parametrize("line", [b"not a message\n", b"?request\n", b"!other[1] ok\n", b"#other[1] x\n"])
def test_nothing_comes_after_a_line_whose_report_has_closed_the_session(line: bytes) -> None:
    """A handler of the log may close the client."""

    class Closing(Owner):
        def session_malformed(self, error: ValueError) -> None:
            self.session.close()

        def session_unknown(self, raw: RawMessage) -> None:
            self.session.close()

    owner = Closing()
    heard: list[RawMessage] = []
    owner.informs[5][b"tick"] = (heard.append,)
    owner.session.receive(V5)
    entry = Entry("echo")
    owner.session.send(entry, [])
    assert entry.mid == 1
    owner.session.receive(line + b"#tick 1\n")
    assert not owner.session.alive and heard == []
