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
    WaitTimeout,
    WatchdogTimeout,
    WriteBufferFull,
)
from .message import Message, MessageType
from .protocol import ProtocolFlags
from .requests import Reply
from .states import State
from .stats import Failure, Stats
from .values import Address, Timestamp, decode, encode, register_type

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
    "Reply",
    "ReplyTooLarge",
    "RequestTimeout",
    "State",
    "Stats",
    "Timestamp",
    "WaitTimeout",
    "WatchdogTimeout",
    "WriteBufferFull",
    "decode",
    "encode",
    "register_type",
]
