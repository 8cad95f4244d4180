"""The Tornado handlers of the page: its files, its WebSocket, and the question for the token."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from tornado import web, websocket

from . import requests
from .access import COOKIE

if TYPE_CHECKING:
    from .site import Site

logger = logging.getLogger("katcp_tornado")

STATIC = Path(__file__).parent / "static"
#: Largest frame that a page may send, in bytes.
LARGEST_FRAME = 64 * 1024
#: Frames that a page may send within a second.
MOST_FRAMES = 50
#: Seconds between pings; a page that answers none of three has gone.
PING = 20.0


class Checked(web.RequestHandler):
    """Lets in only those who may: see `.Access`. Every response says what the browser must not do."""

    site: Site
    open_to_all = False  # also to those who have not given the token

    def initialize(self, site: Site, **others: Any) -> None:
        """Keep the site; Tornado calls this."""
        self.site = site
        self.set_default_headers()

    def set_default_headers(self) -> None:
        """Headers of every response, errors included."""
        site = getattr(self, "site", None)
        ancestors = site.access.frame_ancestors if site is not None else "'none'"
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            f"base-uri 'none'; form-action 'self'; frame-ancestors {ancestors}"
        )
        self.set_header("Content-Security-Policy", policy)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Cache-Control", "no-cache")

    def prepare(self) -> None:
        """Refuse foreign hosts and origins, and ask for the token."""
        access, request = self.site.access, self.request
        if not access.host_allowed(request.host):
            raise web.HTTPError(403, "the host %r is none of ours", request.host)
        for header in ("Origin", "Sec-Websocket-Origin"):
            if not access.origin_allowed(request.headers.get(header), request.protocol, request.host):
                raise web.HTTPError(403, "the origin %r is not allowed", request.headers.get(header))
        if not self.open_to_all and not access.cookie_is_good(self.get_cookie(COOKIE)):
            self.no_token()

    def no_token(self) -> None:
        """Refuse one who has not given the token."""
        raise web.HTTPError(401)


class Page(Checked):
    """The page itself."""

    def get(self) -> None:
        """Send it."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((STATIC / "index.html").read_bytes())

    def no_token(self) -> None:
        """Ask for the token."""
        self.set_status(401)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((STATIC / "login.html").read_bytes())


class Slash(Checked):
    """Sends those on who have left out the slash at the end."""

    open_to_all = True

    def get(self) -> None:
        """Redirect, relative to where the browser is: a proxy may have put a path in front of ours."""
        self.set_status(302)
        self.set_header("Location", self.request.path.rsplit("/", 1)[-1] + "/")
        self.finish()


class Files(Checked, web.StaticFileHandler):
    """The style sheet and the modules of the page; they are no secret."""

    open_to_all = True

    def initialize(self, site: Site, **others: Any) -> None:  # type: ignore[override]  # ours is the site
        """Keep the site; Tornado calls this."""
        Checked.initialize(self, site)
        web.StaticFileHandler.initialize(self, str(STATIC))

    def set_extra_headers(self, path: str) -> None:
        """The browser asks each time whether its copy is still good."""
        self.set_header("Cache-Control", "no-cache")

    def get_content_type(self) -> str:
        """By the name alone: what the system thinks of ``.js`` differs."""
        types = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
        kind = types.get(Path(self.absolute_path or "").suffix, "application/octet-stream")
        return f"{kind}; charset=utf-8"


class Login(Checked):
    """Takes the token, and gives a cookie for it."""

    open_to_all = True

    def check_xsrf_cookie(self) -> None:
        """The origin has been checked."""

    async def post(self) -> None:
        """Compare the token in constant time; a wrong one costs a second."""
        access = self.site.access
        if not access.token_is(self.get_body_argument("token", "")):
            await asyncio.sleep(1.0)
            raise web.HTTPError(403, "wrong token")
        # Without a path, the browser takes that of this page, whatever a proxy makes of it.
        self.set_cookie(
            COOKIE,
            access.pass_value,
            path=None,  # type: ignore[arg-type]
            httponly=True,
            samesite="Strict",
            secure=self.request.protocol == "https",
        )
        self.set_status(303)
        self.set_header("Location", "./")
        self.finish()


class Socket(Checked, websocket.WebSocketHandler):
    """The WebSocket of one page."""

    def initialize(self, site: Site, **others: Any) -> None:
        """Keep the site; Tornado calls this."""
        super().initialize(site)
        self._asked: set[asyncio.Task[None]] = set()
        self._frames = 0  # since `_second`
        self._second = 0.0

    def check_origin(self, origin: str) -> bool:
        """True: `prepare` has checked it, by our own rules."""
        return True

    # Options that Tornado has only for the whole application.

    @property
    def ping_interval(self) -> float:
        """Seconds between pings."""
        return PING

    @property
    def ping_timeout(self) -> float:
        """Seconds without an answer after which the page has gone."""
        return PING

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest frame that is accepted."""
        return LARGEST_FRAME

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Open the WebSocket, unless there are too many."""
        if self.site.feed.full:
            raise web.HTTPError(503, "too many pages are open")
        await super().get(*args, **kwargs)

    def open(self, *args: str, **kwargs: str) -> None:
        """Send the snapshot, and from now on the changes."""
        self.set_nodelay(True)
        if self.site.feed.full:  # several were opened in one turn
            self.close(1013, "too many pages are open")
            return
        self.site.feed.open(self)

    def send(self, frame: str) -> asyncio.Future[None]:
        """Send a frame; see `.feed.Page`."""
        return asyncio.ensure_future(self._write(frame))

    async def _write(self, frame: str) -> None:
        try:
            await self.write_message(frame)
        except websocket.WebSocketClosedError:
            pass  # on_close is called, too

    def on_close(self) -> None:
        """The page has gone; its requests are abandoned."""
        self.site.feed.close(self)
        for task in list(self._asked):
            task.cancel()

    def on_message(self, message: Union[str, bytes]) -> None:
        """A page may ask for one thing only: a request."""
        now = asyncio.get_running_loop().time()
        if now - self._second > 1.0:
            self._second, self._frames = now, 0
        self._frames += 1
        try:
            content = json.loads(message)
            if not isinstance(content, dict):
                raise ValueError("a frame is an object")
            number = content.get("id")
            if self._frames > MOST_FRAMES or not isinstance(number, int):
                raise ValueError("too many frames, or one without a number")
            device, name, arguments = requests.parse(content)
        except (ValueError, RecursionError):
            self.close(1008, "not understood")
            return
        refusal = self._refusal(device)
        if refusal is not None:
            self.send(json.dumps({"answer": number, "error": refusal, "informs": []}))
            return
        task = asyncio.ensure_future(self._ask(number, device, name, arguments))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    def _refusal(self, device: str) -> Optional[str]:
        if not self.site.allow_requests:
            return "requests are not allowed here"
        if self.site.feed.device(device) is None:
            return "there is no such device"
        if len(self._asked) >= requests.MOST_IN_FLIGHT:
            return f"{requests.MOST_IN_FLIGHT} requests are waiting already"
        return None

    async def _ask(self, number: int, device: str, name: str, arguments: list[str]) -> None:
        feed = self.site.feed.device(device)
        if feed is None:
            return
        logger.info("%s: ?%s was asked for by a page of %s", device, name[:100], self.request.remote_ip)
        answer = await requests.ask(feed.client, name, arguments)
        await self._write(json.dumps({"answer": number, **answer}))
