"""Access to the page: the hosts by which it may be asked for, the origins that may ask, and the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from typing import Optional
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
#: Name of the cookie that says that the token has been given.
COOKIE = "katcp_page"


class Access:
    """The rules of who gets in.

    :arg origins: origins allowed beside the page's own.
    :arg hosts: names of the server, beside IP addresses and ``localhost``, with or without port.
    :arg token: what a person must enter first; None: nothing.
    """

    def __init__(self, origins: Iterable[str], hosts: Iterable[str], token: Optional[str] = None) -> None:
        for name, values in (("origins", origins), ("hosts", hosts)):
            if isinstance(values, (str, bytes)):
                raise TypeError(f"{name} must be a list of str, not {type(values).__name__}")
        self._origins = {_parse_origin(origin) for origin in origins}
        self._hosts = {_check_host(host) for host in hosts}
        self._token = token
        # What the cookie holds: nothing from which the token could be found, and worthless after a restart.
        self._pass = None if token is None else _digest(secrets.token_bytes(32), token)

    def host_allowed(self, host: str) -> bool:
        """True if the Host of a request is one by which the server may be asked for."""
        name, _ = _split(host.lower())
        if name is None:
            return False
        return name == "localhost" or _is_ip(name) or name in self._hosts or host.lower() in self._hosts

    def origin_allowed(self, origin: Optional[str], scheme: str, host: str) -> bool:
        """True if a page of this origin may ask; without an Origin the request is not that of a foreign page."""
        if origin is None:
            return True
        try:
            theirs = _parse_origin(origin)
        except ValueError:  # "null", for example
            return False
        if theirs in self._origins:
            return True
        # A proxy that ends TLS leaves us with http where the browser has https: the scheme is not compared.
        name, port = _split(host.lower())
        return theirs[1:] == (name, port if port is not None else _PORTS.get(theirs[0]))

    @property
    def frame_ancestors(self) -> str:
        """The sources that may embed the page, as a Content-Security-Policy has them."""
        return " ".join(["'self'", *sorted(_write_origin(origin) for origin in self._origins)])

    # The token

    @property
    def needs_token(self) -> bool:
        """True if there is a token."""
        return self._token is not None

    def token_is(self, given: str) -> bool:
        """True if *given* is the token; compared in constant time."""
        return self._token is not None and _same(self._token, given)

    @property
    def pass_value(self) -> str:
        """The value of the cookie of one who has given the token."""
        assert self._pass is not None
        return self._pass

    def cookie_is_good(self, value: Optional[str]) -> bool:
        """True if this is the cookie of one who has given the token, or none is needed."""
        return self._pass is None or (value is not None and _same(self._pass, value))


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode("utf-8"), given.encode("utf-8", "replace"))


def _digest(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode("utf-8"), hashlib.sha256).hexdigest()


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _split(host: str) -> tuple[Optional[str], Optional[int]]:
    """Name and port of a Host; (None, None) if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        if parts.netloc != host or "@" in host or not parts.hostname or host.endswith(":"):
            return None, None
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _check_host(host: str) -> str:
    if not isinstance(host, str):
        raise TypeError(f"a host must be a str, not {type(host).__name__}")
    if _split(host.lower())[0] is None:
        raise ValueError(f"{host!r} is not a host: expected a name such as control.example.org")
    return host.lower()


def _parse_origin(origin: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises `ValueError` for what is no origin."""
    if not isinstance(origin, str):
        raise TypeError(f"an origin must be a str, not {type(origin).__name__}")
    scheme, separator, host = origin.lower().partition("://")
    name, port = _split(host.removesuffix("/"))
    if not separator or scheme not in _PORTS or name is None or "*" in name or any(c in name for c in " ;,'\""):
        raise ValueError(f"{origin!r} is not an origin: expected SCHEME://HOST[:PORT], such as https://example.org")
    return scheme, name, port if port is not None else _PORTS[scheme]


def _write_origin(origin: tuple[str, str, int]) -> str:
    scheme, name, port = origin
    host = f"[{name}]" if ":" in name else name
    return f"{scheme}://{host}" if port == _PORTS[scheme] else f"{scheme}://{host}:{port}"


def host_of(origin: str) -> str:
    """The name of the host of an origin. Raises `ValueError` for what is no origin."""
    return _parse_origin(origin)[1]
