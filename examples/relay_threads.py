"""A relay in a program without asyncio: start it, go on with other work, stop it.

python examples/relay_threads.py example.com:80
"""

import sys
import urllib.request

import qanat


def main(remote: str) -> None:
    relay = qanat.Relay([qanat.Endpoint(listen="127.0.0.1:0", remote=remote)])
    try:
        relay.start()
    except qanat.BindError as error:
        sys.exit(f"can't listen: {error}")
    try:
        address = relay.endpoints[0].address
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as response:
            print(f"{response.status} by way of {address}")
        for flow in relay.flows():
            print(f"open: {flow.client} -> {flow.peer}, {flow.bytes_down} bytes down")
        print(f"{relay.stats().total} in all")
    finally:
        relay.stop(drain=1)


if __name__ == "__main__":
    main(sys.argv[1])
