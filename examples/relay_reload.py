"""Send new connections elsewhere while old ones go on.

    python examples/relay_reload.py example.com:80 example.org:80

Each line on standard input is the target from then on; a target that can't be used changes nothing.
"""

import asyncio
import sys

import qanat


def endpoints(remote: str) -> list[qanat.Endpoint]:
    return [
        qanat.Endpoint(listen="127.0.0.1:0", remote=remote, name="front"),
        qanat.Endpoint(listen="127.0.0.1:0", remote="127.0.0.1:9", name="other"),
    ]


async def main(first: str) -> None:
    async with qanat.Relay(endpoints(first)) as relay:
        print(f"{relay.endpoints[0].address} -> {first}", flush=True)
        while remote := (await asyncio.to_thread(sys.stdin.readline)).strip():
            try:
                report = await relay.apply(endpoints(remote))
            except qanat.QanatError as error:
                print(f"as before: {error}", flush=True)
            else:
                print(f"{report}; {relay.open_flows()} open", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
