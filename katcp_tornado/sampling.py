"""Sampling strategies that outlive a connection: the only sender of ``?sensor-sampling`` [section 7].

What is wanted is declared by subscriptions. For each sensor there is an `Item`, which knows what is wanted of it and
what the device does. Wherever the two may differ, because of a new connection, of a subscription that has come or
gone, or because the device has said that its sensors have changed, the item joins the queue, and the queue is worked
off in one way:

    queue -> (the type of its values is looked up) -> ?sensor-sampling -> (a first reading is fetched) -> active

Several sensors with one strategy go in one request where the device has flag B, and several requests at once where
it has message ids. What the device refuses is kept with the subscription, and joins the queue again after a while.
What belongs to a connection is forgotten with it. Nothing of this holds the loop for long: see `Turns`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Optional

from .backoff import Backoff
from .catalogue import Catalogue, Mirror
from .codec import RawMessage
from .errors import FailReply, InvalidReply
from .intake import Intake
from .items import DOUBTFUL, FRESH, NOTHING, Item
from .link import Link
from .listeners import Event
from .message import Message
from .protocol import ProtocolFlags
from .requests import Reply, Waiter
from .states import State
from .strategies import NONE, Strategy
from .timers import Timer
from .turns import TURN, Turns
from .values import encode

if TYPE_CHECKING:
    from .subscriptions import Subscription

#: So many requests are under way at a time, where the device has message ids.
WINDOW = 32
#: So many sensors, and so many bytes of names, go in one request, where the device has flag B.
PIECE = 500
PIECE_BYTES = 32 * 1024
#: So many sensors are read one by one, where the device sends no first reading by itself; for more, all at once.
FEW = 32
#: How long to wait before what was refused is tried again.
RETRY = Backoff(first=1.0, maximum=60.0, minimum=0.5)


def _born(subscription: Subscription) -> int:
    return subscription.born


class Sampling:
    """The sampling strategies of one client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.catalogue = Catalogue(link, self._changed, self._looked_up)
        self._items: dict[bytes, Item] = {}
        self._intake = Intake(link, self._items)
        self._subscriptions: dict[Subscription, None] = {}
        self._births = 0
        self._mirrors: list[Mirror] = []
        #: Calls a user's function.
        self.call: Callable[..., None] = link.listeners.call
        self._turns = Turns(link.loop, self._work)
        self._retry = Timer(link.loop, self._try_again)
        self._backoff = replace(RETRY, random=link.options.backoff.random)
        # Of this connection:
        self._generation = 0
        self._begun = False
        self._protocol: Optional[ProtocolFlags] = None
        self._queue: deque[Item] = deque()
        self._untyped: dict[Item, None] = {}
        self._unread: dict[Item, None] = {}
        self._unended: dict[Item, None] = {}
        self._in_flight = 0
        self._refusals = 0
        self._tried = False
        link.listeners.add_own(self._moved)
        for name in ("version-connect", "version", "build-state"):
            link.listeners.add_own_inform(name, self._on_version)
        if link.is_connected():
            self._begin()

    # What is wanted

    def add(self, subscription: Subscription, names: Iterable[str]) -> None:
        """Somebody wants these sensors, besides those that he wants already."""
        self._births += 1
        subscription.born = self._births
        self._subscriptions[subscription] = None
        subscription.begin(self._link.major)
        self.extend(subscription, ((name, encode(name)) for name in names))

    def extend(self, subscription: Subscription, names: Iterable[tuple[str, bytes]]) -> None:
        """Somebody wants these sensors, too; name, and name on the wire."""
        for name, wire in names:
            item = self._items.get(wire)
            if item is None:
                item = self._items[wire] = Item(name, wire)
            item.subscribers = (subscription, *item.subscribers)
            if len(item.subscribers) > 1:
                item.subscribers = tuple(sorted(item.subscribers, key=_born, reverse=True))
            subscription.items[wire] = item
            subscription.waiting.add(item)
            self._enqueue(item)

    def shrink(self, subscription: Subscription, wires: Iterable[bytes]) -> None:
        """Somebody does not want these sensors any longer."""
        for wire in list(wires):
            item = subscription.items.pop(wire)
            item.subscribers = tuple(other for other in item.subscribers if other is not subscription)
            subscription.waiting.discard(item)
            subscription.refused.pop(item.name, None)
            if self._begun:
                self._enqueue(item)
            elif not item.subscribers:
                self._items.pop(wire, None)
        subscription.settled()

    def remove(self, subscription: Subscription) -> None:
        """Somebody does not want any sensors any longer."""
        self._subscriptions.pop(subscription, None)
        self.shrink(subscription, subscription.items)

    def add_mirror(self, mirror: Mirror) -> None:
        """Tell it what sensors there are, from now on."""
        self._mirrors.append(mirror)
        if self._begun and not self.catalogue.complete:
            self.catalogue.ask(None)

    def remove_mirror(self, mirror: Mirror) -> None:
        """Undo `add_mirror`."""
        self._mirrors.remove(mirror)

    def follow(self, mirrors: Iterable[Mirror]) -> None:
        """Let these follow what the catalogue has told them, as far as that goes in one turn."""
        for mirror in mirrors:
            if mirror.behind and self._turns.room > 0 and self.connected:
                self._turns.take(min(mirror.behind, TURN))
                mirror.follow()

    def _drop(self, item: Item) -> None:
        if not item.subscribers and item.applied == NONE and self._items.get(item.wire) is item:
            del self._items[item.wire]

    # What subscriptions need of the link

    @property
    def connected(self) -> bool:
        """Whether there is a connection, on which the sampling is being put back."""
        return self._begun and self._link.is_connected()

    @property
    def closed(self) -> bool:
        """Whether the client is CLOSED."""
        return self._link.state is State.CLOSED

    def wait(self, what: str, timeout: Optional[float]) -> Waiter:
        """A Future that somebody else settles, unless its time is up or the client closed first."""
        return self._link.ledger.wait(what, None, timeout)

    # Connections come and go

    def _moved(self, event: Event) -> None:
        if event.kind == "connected" and self._link.is_connected():
            self._begin()
        elif event.kind == "disconnected":
            self._lose()
        elif event.new is State.CLOSED:
            self._tell_mirrors()

    def _begin(self) -> None:
        self._generation += 1
        self._begun = True
        self._speak()
        for item in self._items.values():
            item.reset()
            item.queued = True
        self._queue.extend(self._items.values())
        self._turns.soon()
        if self._mirrors:
            self.catalogue.ask(None)
        for subscription in [one for one in self._subscriptions if not one.items]:
            subscription.settled()
        self._tell_mirrors()

    def _speak(self) -> None:
        """What is said to the device, and what it says, is meant as its version wants it."""
        assert self._link.session is not None
        self._protocol = self._link.session.protocol
        self._intake.begin(self._link.major)
        for subscription in self._subscriptions:
            subscription.begin(self._link.major)

    def _on_version(self, raw: RawMessage) -> None:
        """If it is not the version that was assumed, what was set may mean something else to the device."""
        if self.connected and self._link.session is not None and self._link.session.protocol != self._protocol:
            self._speak()
            self.catalogue.doubt()

    def _lose(self) -> None:
        """The link is lost: nobody knows what the sensors do, and the device forgets what it was told."""
        self._generation += 1
        self._begun = False
        self._refusals = 0
        self._tried = False
        self._retry.cancel()
        self.catalogue.forget()
        self._queue.clear()
        self._untyped.clear()
        self._unread.clear()
        self._unended.clear()
        self._turns.forget()
        self._intake.end()
        self._in_flight = 0
        lost = [item for item in self._items.values() if item.heard != NOTHING]
        for wire in [wire for wire, item in self._items.items() if not item.subscribers]:
            del self._items[wire]
        for subscription in self._subscriptions:
            subscription.refused.clear()
            subscription.waiting = set(subscription.items.values())
        self._intake.unreachable(lost)
        self._tell_mirrors()

    def _tell_mirrors(self) -> None:
        for mirror in list(self._mirrors):
            mirror.state_changed()

    # The queue

    def _enqueue(self, item: Item) -> None:
        if self._begun and not item.queued and not item.busy:
            item.queued = True
            self._queue.append(item)
            self._turns.soon()

    def _work(self) -> None:
        """One turn: first what the device has said, then what is to be said to it."""
        self.follow(list(self._mirrors))
        self._turns.go_on()
        if self._turns.room > 0 and self.connected:
            self._pump()

    def _pump(self) -> None:
        assert self._protocol is not None
        window = WINDOW if self._protocol.supports("I") else 1
        piece = PIECE if self._protocol.supports("B") else 1
        turns, queue = self._turns, self._queue
        while queue and self._in_flight < window and turns.room > 0:
            turns.room -= 1
            item = queue.popleft()
            item.queued = False
            strategy = item.wanted()
            if item.needs_type() and strategy != NONE and not self._find_type(item):
                self._untyped[item] = None
            elif strategy == item.applied:
                self._accepted(item)
            else:
                items = self._gather(item, strategy, piece)
                turns.room -= len(items) - 1
                self._sample(items, strategy)
        if self._untyped:
            self.catalogue.ask(next(iter(self._untyped)).wire if len(self._untyped) == 1 else None)
        if not queue and not self._in_flight and self._unread:
            self._read_unread()

    def _gather(self, item: Item, strategy: Strategy, most: int) -> list[Item]:
        """Those at the head of the queue that can go in one request with *item*."""
        items = [item]
        size = len(item.wire)
        queue = self._queue
        while queue and len(items) < most and not item.alone:
            other = queue[0]
            size += 1 + len(other.wire)
            if size > PIECE_BYTES or other.alone or other.applied == strategy or other.wanted() != strategy:
                break
            if other.needs_type() and strategy != NONE and not self._find_type(other):
                break
            queue.popleft()
            other.queued = False
            items.append(other)
        return items

    def _sample(self, items: list[Item], strategy: Strategy) -> None:
        names = b",".join([item.wire for item in items])
        request = self._link.ledger.request("sensor-sampling", (names, *strategy.arguments(self._link.major)))
        for item in items:
            item.busy = True
        self._in_flight += 1
        request.future.add_done_callback(partial(self._sampled, self._generation, items, strategy))

    def _sampled(self, generation: int, items: list[Item], strategy: Strategy, request: asyncio.Future[Reply]) -> None:
        if generation == self._generation:
            self._in_flight -= 1
            self._turns.each(items, partial(self._answered, strategy, request.exception(), len(items) > 1))

    def _answered(self, strategy: Strategy, error: Optional[BaseException], together: bool, item: Item) -> None:
        item.busy = False
        refused = isinstance(error, (FailReply, InvalidReply))
        if item.changed:
            item.changed = False
            self._enqueue(item)
        elif refused and together:  # all of them, because of one: which one?
            item.alone = True
            self._enqueue(item)
        elif error is None or (refused and strategy == NONE):  # the sensor is gone, and its sampling with it
            item.applied = strategy
            self._accepted(item)
        else:
            if not refused:  # it may have been executed
                item.applied = None
            these = [subscription for subscription in item.subscribers if subscription.wanted == strategy]
            self._refused(item, these, f"?sensor-sampling {item.name} {strategy.name}", error)

    def _accepted(self, item: Item) -> None:
        """The device does what some time ago was wanted of it."""
        strategy = item.wanted()
        if strategy != item.applied or (strategy != NONE and item.needs_type()):
            self._enqueue(item)
            return
        item.retry = ()
        in_force = False
        for subscription in item.subscribers:
            in_force = in_force or subscription.wanted == strategy
            if in_force and item.name in subscription.refused and not item.lacks_type(subscription):
                del subscription.refused[item.name]  # what was refused of older ones does not matter now
        if strategy != NONE and item.heard != FRESH:
            self._unread[item] = None
            self._turns.soon()
        else:
            self._settle(item)

    def _refused(self, item: Item, these: list[Subscription], what: str, error: BaseException) -> None:
        """The device does not do what *these* want of it; perhaps it does what an older subscription wants."""
        item.retry = tuple(subscription for subscription in item.retry if subscription not in these)
        for subscription in these:
            subscription.refused[item.name] = error
        self._link.reporter.refused(what, error)
        self._try_later()
        wanted = item.wanted()
        refused = isinstance(error, (FailReply, InvalidReply))  # then what was set before may still be in force
        if wanted == item.applied:
            self._accepted(item)
        elif wanted == NONE and not refused:
            if not item.subscribers:
                self._unended[item] = None
            self._settle(item)
        else:
            self._enqueue(item)
        if item.applied is None and item.heard == DOUBTFUL:
            self._intake.unreachable([item])

    def _settle(self, item: Item) -> None:
        """All is said of a sensor, for now."""
        if not item.subscribers:
            self._drop(item)
            return
        generation = self._generation
        for subscription in item.subscribers:
            if item in subscription.waiting:
                subscription.waiting.discard(item)
                if item.heard == FRESH and not subscription.has(item):  # it has come later than the reading
                    self._intake.take(item, [subscription], *item.last)
                    if generation != self._generation:
                        return
            if not subscription.waiting:
                subscription.settled()

    def _try_again(self) -> None:
        """What was refused may be possible now."""
        unended, self._unended = self._unended, {}
        for item in unended:
            self._enqueue(item)
        again = bool(unended)
        for subscription in self._subscriptions:
            for item in subscription.items.values() if subscription.refused else ():
                if item.name in subscription.refused:
                    again = True
                    item.retry = item.subscribers
                    if item.wire not in self.catalogue.infos:  # there was no such sensor: of what type is it now?
                        item.decode = None
                    subscription.waiting.add(item)
                    self._enqueue(item)
        if self._mirrors and not self.catalogue.complete:
            again = True
            self.catalogue.ask(None)
        self._tried = again
        if again:
            self._retry.start(self._backoff.delay(self._refusals))  # by then, perhaps nothing is refused any more
        else:
            self._refusals = 0

    def _try_later(self) -> None:
        """Something was refused, the first thing since all was tried again, or one more."""
        if self._tried or self._retry.due is None:
            self._tried = False
            self._retry.start(self._backoff.delay(self._refusals))
            self._refusals += 1

    # What the device has

    def _find_type(self, item: Item) -> bool:
        """Set the type of a sensor's values, if it is known."""
        info = self.catalogue.infos.get(item.wire)
        if self.catalogue.asks(item.wire) or (info is None and (item.retry or not self.catalogue.complete)):
            return False
        item.decode = bytes if info is None else info.decoder(self._link.major)
        return True

    def _looked_up(self, wire: Optional[bytes], error: Optional[BaseException]) -> None:
        """The catalogue has asked for one sensor, or for all."""
        generation = self._generation
        mirrors = list(self._mirrors)
        for mirror in mirrors:
            mirror.catalogue_answered(wire, error)
            if generation != self._generation:
                return
        self.follow(mirrors)
        if generation != self._generation:
            return
        if error is not None and self._mirrors:
            self._try_later()
        items = [item for item in self._untyped if wire is None or wire == item.wire]
        self._turns.each(items, partial(self._typed, error))

    def _typed(self, error: Optional[BaseException], item: Item) -> None:
        """The catalogue knows the type of a sensor, as far as that can be known, unless it asks once more."""
        if item not in self._untyped or self.catalogue.asks(item.wire):
            return
        del self._untyped[item]
        if item.queued or item.busy:  # it has changed since, or somebody else wants it, too
            return
        these = [subscription for subscription in item.subscribers if subscription.decode is None]
        if error is not None and these:
            self._refused(item, these, f"?sensor-list {item.name}", error)
        else:
            if item.wire not in self.catalogue.infos:
                item.decode = bytes  # it is for ?sensor-sampling to say that there is no such sensor
            self._enqueue(item)

    def _changed(self, wire: Optional[bytes]) -> None:
        """The device has said that a sensor, or any number of them, has changed: what was set may be forgotten.

        A sensor that was replaced by one of the same name is no longer sampled, and the device does not say so.
        """
        if not self._begun:
            return
        items = list(self._items.values()) if wire is None else [self._items[wire]] if wire in self._items else []
        for item in items:
            item.changed = item.busy
            item.applied = None
            item.decode = None
            item.retry = item.subscribers
            item.alone = b"," in item.wire
            if item.heard == FRESH:
                item.heard = DOUBTFUL
            for subscription in item.subscribers:
                subscription.waiting.add(item)
            self._enqueue(item)
        if self._mirrors:
            self.catalogue.ask(wire)
            self._tell_mirrors()

    # First readings, where the device does not send them by itself

    def _read_unread(self) -> None:
        unread, self._unread = self._unread, {}
        missing: list[Item] = []
        self._turns.each(unread, partial(self._look, missing))
        self._turns.each([missing], self._read)

    def _look(self, missing: Optional[list[Item]], item: Item) -> None:
        """Is there a reading? If not, it is *missing*; None: all was done to get one."""
        if item.queued or item.busy:  # it will come here again
            return
        if missing is None or item.heard == FRESH:
            self._settle(item)
        else:
            missing.append(item)

    def _read(self, items: list[Item]) -> None:
        if len(items) > FEW:
            self._ask_readings((), items)
        else:
            for item in items:
                self._ask_readings((item.wire,), [item])

    def _ask_readings(self, arguments: tuple[bytes, ...], items: list[Item]) -> None:
        generation = self._generation

        def hear(inform: Message) -> None:
            if generation == self._generation:
                self._intake.take_all(inform.arguments, DOUBTFUL)

        def answered(request: asyncio.Future[Reply]) -> None:
            if generation == self._generation:
                self._turns.each(items, partial(self._look, None))

        self._link.ledger.request("sensor-value", arguments, on_inform=hear).future.add_done_callback(answered)
