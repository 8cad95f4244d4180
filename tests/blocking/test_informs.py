"""expect_inform: what comes before the reply of the request that causes it."""

from __future__ import annotations

import pytest
from blocking_tools import TIMEOUT, Served

from katcp_tornado import ClientClosed, Message, WaitTimeout
from katcp_tornado.blocking import BlockingClient
from katcp_tornado.testing import RequestContext


def ready(message: Message) -> bool:
    return message.arguments == [b"ready"]


def progdev(context: RequestContext, message: Message) -> None:
    """As of an FPGA board: the inform comes first, and to everybody."""
    context.device.inform_all("fpga", "loading")
    context.device.inform_all("fpga", "ready")


def test_an_inform_before_the_reply(client: BlockingClient, served: Served) -> None:
    served.do(lambda device: device.request("progdev")(progdev))
    with client.expect_inform("fpga", ready, timeout=TIMEOUT) as expected:
        assert not expected.done()
        client.request("progdev", "design.fpg")
    assert expected.result().arguments == [b"ready"] and expected.done()
    assert expected.result().arguments == [b"ready"]  # as often as one likes


def test_the_timeout_runs_from_the_entry(client: BlockingClient) -> None:
    with client.expect_inform("fpga", timeout=0.01) as expected:
        pass  # leaving does not wait
    with pytest.raises(WaitTimeout):
        expected.result()


def test_left_by_an_exception_it_gives_up(client: BlockingClient) -> None:
    with pytest.raises(ZeroDivisionError), client.expect_inform("fpga") as expected:
        raise ZeroDivisionError
    assert expected.done()
    assert client.call(lambda: not list(client.client._link.waiters))


def test_closed_meanwhile(client: BlockingClient) -> None:
    with client.expect_inform("fpga") as expected:
        client.close()
    with pytest.raises(ClientClosed):
        expected.result()
    with pytest.raises(ClientClosed), client.expect_inform("fpga"):
        pass


def test_wrong_use(client: BlockingClient) -> None:
    with pytest.raises(ValueError, match="not a KATCP name"), client.expect_inform("not a name"):
        pass
    expected = client.expect_inform("fpga")
    with pytest.raises(RuntimeError, match="from its `with` on"):
        expected.result()
    with expected:
        pass
    with pytest.raises(RuntimeError, match="once"), expected:
        pass
