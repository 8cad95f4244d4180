"""A KATCP client for Tornado that keeps its connection."""

from .backoff import Backoff
from .client import Client
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
    ReplyTooLarge,
    RequestTimeout,
    SensorNotFound,
    SensorValueError,
    WaitTimeout,
    WatchdogTimeout,
    WriteBufferFull,
)
from .logs import forward_logs
from .message import Message, MessageType
from .protocol import ProtocolFlags
from .requests import Reply
from .sensor_types import Reading, SensorInfo, SensorStatus
from .states import State
from .stats import Failure, Stats
from .subscriptions import Subscription
from .values import Address, Timestamp, decode, encode, register_type
from .watcher import Sensor, SensorWatcher, SyncState

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AddressErrors",
    "Backoff",
    "Client",
    "ClientClosed",
    "ConnectTimeout",
    "ConnectionLost",
    "DeviceDisconnected",
    "DrainTimeout",
    "FailReply",
    "Failure",
    "HandshakeTimeout",
    "InvalidReply",
    "KatcpError",
    "LineTooLong",
    "Message",
    "MessageType",
    "NotConnected",
    "ProtocolError",
    "ProtocolFlags",
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
