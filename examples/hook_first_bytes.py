"""One port for SSH and for everything else, and a limit on how often one address may try SSH.

    python examples/hook_first_bytes.py 127.0.0.1:22 127.0.0.1:8080

The hook is a coroutine: it could just as well ask a database, and no other flow would wait for it.
"""

import asyncio
import sys
import time
from collections import defaultdict, deque
from contextlib import suppress

import qanat

TRIES, SECONDS = 3, 60.0
tries: defaultdict[str, deque[float]] = defaultdict(deque)


async def decide(arrival: qanat.Arrival) -> qanat.Decision:
    if not arrival.first_bytes.startswith(b"SSH-"):
        return 1
    now = time.monotonic()
    recent = tries[str(arrival.client_ip)]
    while recent and recent[0] < now - SECONDS:
        recent.popleft()
    if len(recent) == TRIES:
        return qanat.Refuse("too many tries")
    recent.append(now)
    return 0


def say(text: str) -> None:
    # In one piece: notices come from another thread.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(ssh: str, other: str) -> None:
    endpoint = qanat.Endpoint(
        listen="127.0.0.1:0",
        remote=ssh,
        extra_remotes=[other],
        hook=f"{__name__}:decide",
        hook_first_bytes=4,
        hook_timeout=2,
    )
    async with qanat.Relay([endpoint]) as relay:
        ended = relay.ended()
        relay.on_notice(lambda notice: say(notice.text))
        say(relay.endpoints[0].address)
        async for flow in ended:
            say(f"{flow.target}: {flow.detail or flow.reason}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
