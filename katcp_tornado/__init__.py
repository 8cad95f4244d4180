"""A KATCP client for Tornado that keeps its connection."""

from .client import Client
from .connection.backoff import Backoff
from .connection.requests import Reply
from .connection.states import State
from .connection.stats import Failure, Stats
from .device import Device
from .device_logs import forward_logs
from .errors import (
    AddressErrors,
    ClientClosed,
    ConnectionLost,
    ConnectTimeout,
    DeviceDisconnected,
    DrainTimeout,
    FailReply,
    HandshakeTimeout,
    InvalidReply,
    KatcpError,
    LineTooLong,
    NotConnected,
    ProtocolError,
    QuorumNotReached,
    ReplyTooLarge,
    RequestTimeout,
    SensorNotFound,
    SensorValueError,
    WaitTimeout,
    WatchdogTimeout,
    WriteBufferFull,
)
from .groups import ClientGroup, GroupReply
from .sensors.mirror import Sensor
from .sensors.subscription import Subscription
from .sensors.types import Reading, SensorInfo, SensorStatus
from .sensors.watcher import SensorWatcher, SyncState
from .version import __version__ as __version__
from .wire.message import Message, MessageType
from .wire.values import Address, Timestamp, decode, encode, register_type
from .wire.version import ProtocolFlags

__all__ = [
    "Address",
    "AddressErrors",
    "Backoff",
    "Client",
    "ClientClosed",
    "ClientGroup",
    "ConnectTimeout",
    "ConnectionLost",
    "Device",
    "DeviceDisconnected",
    "DrainTimeout",
    "FailReply",
    "Failure",
    "GroupReply",
    "HandshakeTimeout",
    "InvalidReply",
    "KatcpError",
    "LineTooLong",
    "Message",
    "MessageType",
    "NotConnected",
    "ProtocolError",
    "ProtocolFlags",
    "QuorumNotReached",
    "Reading",
    "Reply",
    "ReplyTooLarge",
    "RequestTimeout",
    "Sensor",
    "SensorInfo",
    "SensorNotFound",
    "SensorStatus",
    "SensorValueError",
    "SensorWatcher",
    "State",
    "Stats",
    "Subscription",
    "SyncState",
    "Timestamp",
    "WaitTimeout",
    "WatchdogTimeout",
    "WriteBufferFull",
    "decode",
    "encode",
    "forward_logs",
    "register_type",
]
