"""Ask a receiver for an attenuation that it has, and for one that it has not."""

import asyncio

from katcp_tornado import Client, FailReply


async def main():
    async with await Client.connect("localhost", 7147, timeout=10) as client:
        reply, informs = await client.request("set-attenuation", 12.5)
        print("attenuation is", float(reply[0]), "dB")
        try:
            await client.request("set-attenuation", 50)
        except FailReply as exc:
            print("the device says no:", exc)


asyncio.run(main())
