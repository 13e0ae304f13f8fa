"""Count what goes through a relay, by the reason for which each connection ended.

    python examples/relay_events.py example.com:80

Callbacks run on a thread of the relay's own, so they should be quick. An exception in one is logged
and does no other harm.
"""

import asyncio
import signal
import sys
from collections import Counter

import qanat


async def main(remote: str) -> None:
    reasons: Counter[str | None] = Counter()

    def count(flow: qanat.Flow) -> None:
        reasons[flow.reason] += 1

    def tell(notice: qanat.Notice) -> None:
        print(f"{notice.endpoint}: {notice.text} ({notice.count} times)", flush=True)

    relay = qanat.Relay(
        [qanat.Endpoint(listen="127.0.0.1:0", remote=remote, name="front")],
        config=qanat.Config(limits=qanat.Limits(max_connections=100)),
    )
    relay.on_ended(count)
    relay.on_notice(tell)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with relay:
        print(relay.endpoints[0].address, flush=True)
        await stop.wait()
        cut = await relay.aclose(drain=5)
    print(f"{dict(reasons)}, {cut} cut")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
