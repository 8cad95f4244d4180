"""katcp-tornado web: where it listens, who gets in, and what it says of that."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.testing import bind_unused_port
from tornado.websocket import websocket_connect

from katcp_tornado.testing import FakeDevice

pytestmark = pytest.mark.real_time


@contextlib.asynccontextmanager
async def served(start: Any, *args: Any, host: str = "127.0.0.1") -> AsyncIterator[tuple[Any, str]]:
    """The command, and the address at which its page is."""
    process = await start("web", "--listen", f"{host}:0", *args)
    line = (await process.stderr.readline()).decode()
    match = re.fullmatch(rf"katcp-tornado: listens on (http://{host}:\d+/)\n", line)
    assert match is not None, line
    yield process, match[1]
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def fetch(url: str, **options: Any) -> Any:
    return await AsyncHTTPClient(force_instance=True).fetch(url, raise_error=False, request_timeout=60, **options)


@pytest.mark.gen_test
async def test_the_page_is_at_the_root(device: FakeDevice, start: Any) -> None:
    address, origin = f"{device.host}:{device.port}", "https://control.example.org"
    async with served(start, address, "--origin", origin) as (process, url):
        response = await fetch(url)
        assert response.code == 200 and b"KATCP devices" in response.body
        for host, code in (("control.example.org", 200), ("evil.example.org", 403)):
            assert (await fetch(url, headers={"Host": host})).code == code
        process.send_signal(signal.SIGINT)
        stdout, stderr = await process.communicate()
        assert (process.returncode, stdout) == (130, b"")
        assert stderr == b"403 GET / (127.0.0.1): the host 'evil.example.org' is none of ours\n"


@pytest.mark.gen_test
async def test_a_service_manager_ends_it(device: FakeDevice, start: Any) -> None:
    """On SIGTERM it closes the pages and the links, and says nothing."""
    async with served(start, f"{device.host}:{device.port}") as (process, url):
        page = await websocket_connect(f"ws{url[4:]}ws")
        assert await page.read_message() is not None
        process.send_signal(signal.SIGTERM)
        while await page.read_message() is not None:
            pass
        page.close()
        assert await process.communicate() == (b"", b"")
        assert process.returncode == 143


@pytest.mark.gen_test
async def test_the_token(device: FakeDevice, start: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open sesame\n")
    async with served(start, f"{device.host}:{device.port}", "--token-file", tmp_path / "token") as (_, url):
        assert (await fetch(url)).code == 401
        response = await fetch(f"{url}login", method="POST", body="token=open+sesame", follow_redirects=False)
        assert response.code == 303
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert (await fetch(url, headers={"Cookie": cookie.partition(";")[0]})).code == 200


@pytest.mark.gen_test
async def test_a_warning_where_others_reach_it(device: FakeDevice, start: Any) -> None:
    async with served(start, f"{device.host}:{device.port}", "--allow-requests", host="0.0.0.0") as (process, _):
        warning = await process.stderr.readline()
        assert b"whoever reaches this port can see the devices and send them requests" in warning


@pytest.mark.gen_test
async def test_a_port_that_is_taken(invoke: Any) -> None:
    sock, port = bind_unused_port()
    with sock:
        code, stdout, stderr = await invoke("web", "localhost", "--listen", str(port))
    assert (code, stdout) == (2, "") and f"cannot listen on 127.0.0.1:{port}: " in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ([], "KATCP_SERVER"),
        (["a:b:c"], "expected HOST[:PORT]"),
        (["m000", "--origin", "example.org"], "is not an origin"),
        (["m000", "--token-file", "/nonesuch"], "/nonesuch: "),
        (["m000", "--token-file", __file__ + "/x"], "Not a directory"),
        (["m000", "--token-file", "/dev/null"], "8 characters at least"),
        (["m000", "--listen", "nowhere:99999"], "port must be between 1 and 65535"),
    ],
)
@pytest.mark.gen_test
async def test_usage(invoke: Any, args: list[str], why: str) -> None:
    code, stdout, stderr = await invoke("web", *args)
    assert (code, stdout) == (2, "") and why in stderr and "Traceback" not in stderr
