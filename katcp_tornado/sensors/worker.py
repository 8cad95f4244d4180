"""The worker: does for each marked sensor what `next_step` says, a slice in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from ..connection.link import Link
from ..connection.requests import Reply
from ..errors import FailReply, InvalidReply, SensorValueError
from ..wire.message import Message
from ..wire.version import ProtocolFlags
from .cooperator import Cooperator
from .rechecks import Rechecks
from .retry import Retry
from .sampled_sensor import BUSY, FRESH, IDLE, NOTHING, QUEUED, RECHECKED, REPEATED, SILENT, SampledSensor
from .sensor_list import SensorList
from .steps import Step, next_step
from .strategies import NONE, Strategy
from .updates import Updates

if TYPE_CHECKING:
    from .subscription import Subscription

#: So many requests are in flight at a time, where the device has message ids.
WINDOW = 32
#: So many sensors, and so many bytes of names, go in one request, where the device has flag B.
PIECE = 500
PIECE_BYTES = 32 * 1024
#: So many sensors are read one by one, where the device sends no first reading by itself; for more, all at once.
FEW = 32


class Worker:
    """Makes the device sample what is wanted.

    :arg settled: called with a sensor for which nothing more is to be done.
    :arg tell: called with a subscription that may no longer be synced; tells it at the end of the slice.
    :arg turns: where it takes room for its work.
    :arg again: tries again what was refused; False if nothing is refused any more.
    """

    __slots__ = (
        "_blocked",
        "_in_flight",
        "_link",
        "_protocol",
        "_queue",
        "_settled",
        "_tell",
        "_unread",
        "_untyped",
        "_updates",
        "list",
        "rechecks",
        "retry",
        "turns",
    )

    def __init__(
        self,
        link: Link,
        sensor_list: SensorList,
        updates: Updates,
        settled: Callable[[SampledSensor], None],
        tell: Callable[[Subscription], None],
        turns: Cooperator,
        again: Callable[[], bool],
    ) -> None:
        self._link = link
        self.list = sensor_list
        self._updates = updates
        self._settled = settled
        self._tell = tell
        self.turns = turns
        self.rechecks = Rechecks(link.loop, self.turns.soon)
        self.retry = Retry(link.loop, again, link.options.backoff)
        self._in_flight: set[asyncio.Future[Reply]] = set()
        self.forget()

    def forget(self) -> None:
        """There is no connection, or all is to be done again: what was asked before counts no longer."""
        self._protocol: Optional[ProtocolFlags] = None
        self._queue: deque[SampledSensor] = deque()  # also tells answers of now from earlier ones
        self._untyped: dict[SampledSensor, None] = {}  # wait for an answer of the list
        self._unread: dict[SampledSensor, None] = {}  # wait until a first reading is asked for
        self._blocked: dict[SampledSensor, None] = {}  # something of these was refused
        in_flight, self._in_flight = self._in_flight, set()
        for future in in_flight:
            future.cancel()
        self.turns.forget()
        self.rechecks.forget()
        self.retry.reset()

    def begin(self, protocol: ProtocolFlags) -> None:
        """There is a connection."""
        self.forget()
        self._protocol = protocol

    def mark(self, sensor: SampledSensor) -> None:
        """Marks a sensor: what is wanted of it, or what is so, has changed."""
        if sensor.place == IDLE and self._protocol is not None:
            sensor.place = QUEUED
            self._queue.append(sensor)
            self.turns.soon()

    # What `next_step` asks of the device

    @property
    def bulk(self) -> bool:
        """True if a request can name several sensors."""
        return self._protocol is not None and self._protocol.supports("B")

    def has(self, wire: bytes) -> Optional[bool]:
        """True if the device has a sensor, None if that is not known."""
        return None if self.list.asks(wire) else self.list.known.has(wire)

    # One turn

    def work(self) -> None:
        """Take steps, as far as there is room in this turn and in the window."""
        assert self._protocol is not None
        window = WINDOW if self._protocol.supports("I") else 1
        turns, mine = self.turns, self._queue
        while len(self._in_flight) < window and turns.room > 0:
            queue = mine or self.rechecks.round
            if not queue:
                break
            turns.room -= 1
            sensor = queue.popleft()
            if queue is mine:
                sensor.place = IDLE
            if sensor.place == IDLE:  # otherwise it is marked as well, or busy, and its turn comes then
                self._step(sensor, queue)
                if mine is not self._queue:  # a callback has closed the client
                    return
        if self._untyped:
            self.list.look_up([sensor.wire for sensor in self._untyped])
        if not self._queue and not self._in_flight:
            self.rechecks.over()
            if self._unread:
                self._read_unread()

    def _step(self, sensor: SampledSensor, queue: deque[SampledSensor]) -> None:
        step = next_step(sensor, self)
        if step is Step.LOOK_UP and self._find_type(sensor):
            step = next_step(sensor, self)
        if step is Step.SET:
            self._set(self._gather(sensor, queue), sensor.wanted())
        elif step is Step.LOOK_UP:
            self._untyped[sensor] = None
        elif step is Step.READ:
            self._unread[sensor] = None
            self.turns.soon()
        elif step is Step.REJECT:
            error = SensorValueError(
                f"sensor {sensor.name}: this device takes its name for several, because of the comma"
            )
            self._block(sensor, sensor.subscribers, f"?sensor-sampling {sensor.name}", error)
        elif step is not Step.WAIT:
            self._in_force(sensor)

    def _find_type(self, sensor: SampledSensor) -> bool:
        """Set what is known of a sensor's type, or of its existence; False if it has to be asked for."""
        has = self.has(sensor.wire)
        if has is None:
            return False
        if sensor.decode is None:  # if there is no such sensor, it is for ?sensor-sampling to say so
            info = self.list.known.infos.get(sensor.wire)
            sensor.decode = bytes if info is None else self._updates.decoder(info)
        return True

    # Strategies

    def _gather(self, sensor: SampledSensor, queue: deque[SampledSensor]) -> list[SampledSensor]:
        """Sensors at the head of the queue that can go in one request with this one."""
        sensors, strategy, size = [sensor], sensor.wanted(), len(sensor.wire)
        most = PIECE if self.bulk and not sensor.alone else 1
        while queue and len(sensors) < most:
            other = queue[0]
            size += 1 + len(other.wire)
            if size > PIECE_BYTES or other.alone or other.place == BUSY:
                break
            if other.place == QUEUED and queue is not self._queue:  # it is marked as well: its turn comes then
                break
            step = next_step(other, self)
            if step is Step.LOOK_UP and self._find_type(other):
                step = next_step(other, self)
            if step is not Step.SET or other.wanted() != strategy:
                break
            queue.popleft()
            other.place = IDLE
            sensors.append(other)
        self.turns.room -= len(sensors) - 1
        return sensors

    def _set(self, sensors: list[SampledSensor], strategy: Strategy) -> None:
        names = b",".join([sensor.wire for sensor in sensors])
        request = self._link.pending.ask("sensor-sampling", (names, *strategy.arguments(self._link.major)))
        for sensor in sensors:
            sensor.place = BUSY
            if sensor.recheck:
                sensor.recheck = False
                if sensor.heard == FRESH and strategy != NONE:
                    sensor.heard = RECHECKED
        if self.list.is_announced:
            self.rechecks.fresh.update(sensors)
        self._in_flight.add(request.future)
        request.future.add_done_callback(partial(self._answered, self._queue, sensors, strategy))

    def _answered(
        self, queue: object, sensors: list[SampledSensor], strategy: Strategy, request: asyncio.Future[Reply]
    ) -> None:
        if queue is self._queue:
            self._in_flight.discard(request)
            self.turns.each(sensors, partial(self._take, strategy, request.exception(), len(sensors) > 1))

    def _take(self, strategy: Strategy, error: Optional[BaseException], together: bool, sensor: SampledSensor) -> None:
        """Take the answer about a sensor."""
        sensor.place = IDLE
        refused = isinstance(error, (FailReply, InvalidReply))
        if sensor.heard == REPEATED:
            sensor.heard = FRESH
        if error is None:
            sensor.accepted = strategy
        elif refused and together:  # all of them, because of one: which one?
            sensor.alone = True
        else:
            if not refused or strategy == sensor.accepted:  # perhaps executed; or no longer in force
                sensor.accepted = None
            these: Iterable[Optional[Subscription]] = [None]
            if strategy == NONE:
                self.list.known.drop({sensor.wire})  # it may have gone without a word, and come back as another one
                sensor.decode = None
            else:
                these = [subscription for subscription in sensor.subscribers if subscription.wanted == strategy]
            self._block(sensor, these, f"?sensor-sampling {sensor.name} {strategy.name}", error)
            return
        self.mark_or_settle(sensor)

    def mark_or_settle(self, sensor: SampledSensor) -> None:
        """Settle a sensor at once if nothing more is to be done for it: that is so for nearly all answers."""
        if next_step(sensor, self) in (Step.SETTLED, Step.DROP):
            self._in_force(sensor)
        else:
            self.mark(sensor)

    def _in_force(self, sensor: SampledSensor) -> None:
        """The device does what is wanted of a sensor: what was refused of older subscriptions does not matter now."""
        wanted = sensor.wanted()
        in_force = False
        for subscription in sensor.subscribers:
            in_force = in_force or (subscription not in sensor.blocked and subscription.wanted == wanted)
            if in_force and sensor.name in subscription.refused and not sensor.lacks_type(subscription):
                sensor.unsettle_refused()  # they are told
                del subscription.refused[sensor.name]
        if not sensor.subscribers:
            sensor.blocked = ()
        elif in_force and sensor.blocked:
            sensor.blocked = tuple(one for one in sensor.blocked if one is not None and sensor.name in one.refused)
        self._settled(sensor)

    # What is refused

    def _block(
        self, sensor: SampledSensor, these: Iterable[Optional[Subscription]], what: str, error: BaseException
    ) -> None:
        """The device does not do what *these* want of a sensor; perhaps it does what an older subscription wants."""
        sensor.blocked = (*sensor.blocked, *these)
        for subscription in these:
            if subscription is not None:
                subscription.refused[sensor.name] = error
        self._unsettle_refused(sensor)
        self._blocked[sensor] = None
        if None not in sensor.blocked or isinstance(error, (FailReply, InvalidReply)):
            self._link.log.refused(what, error)
        self.retry.failed()
        if sensor.last is not None and sensor.accepted in (None, NONE) and sensor.wanted() == NONE:
            self._updates.unreachable([sensor])
        self.mark_or_settle(sensor)

    def unblock(self, sensors: Optional[Iterable[SampledSensor]] = None) -> bool:
        """Try again what was refused, of these or of all sensors; False if nothing was."""
        again = False
        blocked = [sensor for sensor in (self._blocked if sensors is None else sensors) if sensor in self._blocked]
        for sensor in blocked:
            del self._blocked[sensor]
            if sensor.blocked:
                again = True
                sensor.blocked = ()
                self.list.known.doubt(sensor.wire)
                if sensor.wire not in self.list.known.infos:  # there was no such sensor: of what type is it now?
                    sensor.decode = None
                self._unsettle_refused(sensor)
                self.mark(sensor)
        return again

    def _unsettle_refused(self, sensor: SampledSensor) -> None:
        sensor.unsettle_refused()
        for subscription in sensor.unsettled:
            self._tell(subscription)

    # Types

    def waits_for_list(self) -> Iterable[bytes]:
        """The names of the sensors that wait for an answer of the list."""
        return [sensor.wire for sensor in self._untyped]

    def listed(self, wire: Optional[bytes], error: Optional[BaseException]) -> None:
        """The device has answered about one sensor, or about all."""
        sensors = [sensor for sensor in self._untyped if wire is None or wire == sensor.wire]
        self.turns.each(sensors, partial(self._typed, error))

    def _typed(self, error: Optional[BaseException], sensor: SampledSensor) -> None:
        if sensor not in self._untyped or self.list.asks(sensor.wire):
            return
        del self._untyped[sensor]
        has = self.list.known.has(sensor.wire)
        these = [  # who wants no sampling is content with a sensor that is not there
            one for one in sensor.subscribers if one.own_type and (has is not False or one.wanted != NONE)
        ]
        if error is not None and these:
            self._block(sensor, these, f"?sensor-list {sensor.name}", error)
        elif error is None or has is not None:
            self.mark(sensor)

    # First readings, where the device does not send them by itself

    def _read_unread(self) -> None:
        unread, self._unread = self._unread, {}
        missing: list[SampledSensor] = []
        self.turns.each(unread, partial(self._look, missing))
        self.turns.each([missing], self._read)

    def _look(self, missing: list[SampledSensor], sensor: SampledSensor) -> None:
        """Is there a reading by now?"""
        if next_step(sensor, self) is Step.READ:
            missing.append(sensor)
        else:
            self.mark_or_settle(sensor)

    def _read(self, sensors: list[SampledSensor]) -> None:
        if len(sensors) > FEW:
            self._ask_readings((), sensors)
        else:
            for sensor in sensors:
                self._ask_readings((sensor.wire,), [sensor])

    def _ask_readings(self, arguments: tuple[bytes, ...], sensors: list[SampledSensor]) -> None:
        queue = self._queue

        def hear(inform: Message) -> None:
            if queue is self._queue:
                self._updates.take_all(inform.arguments, SILENT)

        def answered(request: asyncio.Future[Any]) -> None:
            if queue is self._queue:
                self.turns.each(sensors, self._was_read)

        self._link.pending.ask("sensor-value", arguments, on_inform=hear).future.add_done_callback(answered)

    def _was_read(self, sensor: SampledSensor) -> None:
        if sensor.heard == NOTHING:
            sensor.heard = SILENT
        self.mark_or_settle(sensor)
