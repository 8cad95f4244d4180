"""Follow the temperature of a receiver, through all its absences."""

import asyncio
import contextlib

from katcp_tornado import Client


async def main():
    async with Client("localhost", 7147) as client:

        def on_connected():
            print("connected:", client.protocol)

        def on_disconnected():
            print("lost:", client.last_exc)

        def on_failed_connect(exc):
            print("not yet:", exc)

        def on_reading(reading):
            print(reading.name, reading.value, reading.status.name)

        client.add_connected_callback(on_connected)
        client.add_disconnected_callback(on_disconnected)
        client.add_failed_connect_callback(on_failed_connect)
        client.subscribe("temperature", on_reading, strategy="event")
        await client.wait_closed()  # that is, until Ctrl-C


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
