"""The next step for a sensor, from what is wanted of it and what is so: a pure function.

Sampling is level-triggered: an event (a connection, an announcement, a subscription that comes or goes, an answer, time
that has passed) only changes what is wanted or what is so, and marks the sensor. What is then to be done is decided
here, from these two and nothing else. So marking twice is marking once, and it does not matter in which order events
come.
"""

from __future__ import annotations

import enum
from typing import Protocol

from .sampled_sensor import BUSY, NOTHING, SampledSensor
from .strategies import NONE


class Step(enum.Enum):
    """Next step for a sensor."""

    #: Ask the device for the sensor's type, or whether it has the sensor at all.
    LOOK_UP = "ask for it with ?sensor-list"
    #: Ask the device to sample it by the strategy that is wanted.
    SET = "set the strategy with ?sensor-sampling"
    #: Its name cannot be sent to this device.
    REJECT = "fail: its name cannot be sent"
    #: Ask for a first reading, which the device has not sent by itself.
    READ = "ask for a reading with ?sensor-value"
    #: Nothing: an answer, or the time to try again, will mark the sensor.
    WAIT = "wait"
    #: Nothing: all is as wanted. Tell those who wait for that.
    SETTLED = "settled"
    #: Forget it: nobody wants it, and the device does not sample it.
    DROP = "forget it"


class Device(Protocol):
    """Device, as `next_step` needs it."""

    @property
    def bulk(self) -> bool:
        """True if commas separate the names of several sensors [flag B, section 7.1]."""

    def has(self, wire: bytes) -> bool | None:
        """True if the device has this sensor, None if it has not said so yet."""


def next_step(sensor: SampledSensor, device: Device) -> Step:
    """The next step for a sensor."""
    if sensor.place == BUSY:
        return Step.WAIT
    wanted = sensor.wanted()
    if wanted != NONE:
        if b"," in sensor.wire and device.bulk:
            return Step.REJECT
        if sensor.needs_type():
            return Step.LOOK_UP
        if wanted != sensor.accepted or sensor.recheck:
            return Step.SET
        if sensor.heard == NOTHING:
            return Step.READ
        return Step.SETTLED
    rest = Step.SETTLED if sensor.subscribers else Step.DROP
    if sensor.accepted == NONE or (sensor.accepted is None and sensor.subscribers):
        return rest
    if None in sensor.blocked:  # the device refused to end the sampling: does it have the sensor at all?
        has = device.has(sensor.wire)
        return Step.LOOK_UP if has is None else Step.WAIT if has else rest
    return Step.SET
