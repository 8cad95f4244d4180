"""Which device a command talks to, and how: addresses, names from the configuration file, TLS."""

from __future__ import annotations

import os
import re
import ssl
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional

from .. import Client, Device, ProtocolFlags
from ..connection.options import check_address

#: The port of a device where none is given [section 2.1 has none; it is that of the reference servers].
PORT = 7147
_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")


class HostPort(NamedTuple):
    """Where a device is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, port: int = PORT) -> HostPort:
        """An address of the form ``HOST[:PORT]`` or ``[V6][:PORT]``. Raises `ValueError`."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r}: expected HOST[:PORT], such as 192.168.1.10:7147, device.example.org or [::1]:7147"
            )
        try:
            host = match[1] or match[2]
            return cls(host, check_address(host, match[3] or port))
        except ValueError as exc:
            raise ValueError(f"{text!r}: {exc}") from None


class Target(NamedTuple):
    """A device, and the options of its client."""

    address: HostPort
    options: dict[str, Any]

    def client(self, **options: Any) -> Client:
        """A client of it."""
        return Client(self.address.host, self.address.port, **{**self.options, **options})

    def device(self, **options: Any) -> Device:
        """A device of it."""
        return Device(self.address.host, self.address.port, **{**self.options, **options})


def find(text: Optional[str]) -> HostPort:
    """The device of a name of the configuration file, or of an address; by default, and for ``-``, of KATCP_SERVER.

    Raises `ValueError`.
    """
    if not text or text == "-":
        text = os.environ.get("KATCP_SERVER")
    if not text:
        raise ValueError("no device is given, and the environment has no KATCP_SERVER")
    return HostPort.parse(configured().get(text, text))


def configured() -> dict[str, str]:
    """The names of the configuration file, with their addresses. Raises `ValueError` if it cannot be read."""
    path = config_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path}: {exc}") from None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    try:
        devices = tomllib.loads(text).get("devices", {})
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path}: {exc}") from None
    if not isinstance(devices, dict) or not all(isinstance(address, str) for address in devices.values()):
        raise ValueError(f"{path}: [devices] must have a name and an address in each line: m000 = '10.0.0.1:7147'")
    return devices


def config_file() -> Path:
    """``katcp-tornado.toml`` in the user's configuration folder."""
    import platformdirs

    return Path(platformdirs.user_config_dir("katcp-tornado", appauthor=False)) / "katcp-tornado.toml"


def client_options(
    *, tls: bool = False, ca: Optional[str] = None, insecure: bool = False, assume_protocol: Optional[str] = None
) -> dict[str, Any]:
    """The options of a client, as they are given on the command line. Raises `ValueError`."""
    options: dict[str, Any] = {}
    if tls or ca is not None or insecure:
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as exc:
            raise ValueError(f"--ca {ca}: {exc}") from None
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        options["ssl_options"] = context
    if assume_protocol is not None:
        options["assume_protocol"] = ProtocolFlags.parse(assume_protocol)
    return options
