"""Follow the temperature of a receiver, through all its absences."""

import asyncio
import contextlib

from katcp_tornado import Client, KatcpError, Timestamp


async def main():
    async with Client("localhost", 7147) as client:

        async def on_connected():
            print("connected:", client.protocol)
            try:
                await client.request("sensor-sampling", "temperature", "event")
            except KatcpError as exc:
                print("not sampled:", exc)  # if the link was lost, we will be back

        def on_disconnected():
            print("lost:", client.last_exc)

        def on_failed_connect(exc):
            print("not yet:", exc)

        def on_status(time: Timestamp, n: int, name: str, status: str, value: float):
            print(name, value, status)

        client.add_connected_callback(on_connected)
        client.add_disconnected_callback(on_disconnected)
        client.add_failed_connect_callback(on_failed_connect)
        client.add_inform_callback("sensor-status", on_status)
        await client.wait_closed()  # that is, until Ctrl-C


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
