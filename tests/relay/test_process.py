"""What becomes of a relay when its process exits, is interrupted, or forks."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from tests.support.echo import echo_server

PROLOGUE = """
import asyncio, os, signal, socket, sys, threading, time, warnings
import qanat

def print(*words, flush=True):
    # A line at one go, as parent and child write to one pipe.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)

def says(client, text=b"hello"):
    try:
        client.sendall(text)
        return client.recv(100)
    except ConnectionError:
        return b""

def descriptors():
    links = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            links[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return links

before = descriptors()
endpoint = qanat.Endpoint(listen="127.0.0.1:0", remote=sys.argv[1])
relay = qanat.Relay([endpoint])
"""


FORKING = ("-W", "ignore::DeprecationWarning")
"""Newer Pythons warn of every fork with threads, also of one that goes well."""


def run(program: str, *options: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    with echo_server() as port:
        return subprocess.run(
            [
                sys.executable,
                *options,
                "-c",
                PROLOGUE + textwrap.dedent(program),
                f"127.0.0.1:{port}",
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines of a program that must not have failed or complained."""
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "dev"])
def test_a_program_may_end_with_its_relay_running(options: tuple[str, ...]) -> None:
    done = run(
        """
        relay.start()
        client = connect(relay.endpoints[0].address)
        print(says(client))
        client.close()
        """,
        *options,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "b'hello'\n"
    if options:
        assert "ResourceWarning: 1 relay(s) still ran" in done.stderr
    else:
        assert done.stderr == ""


def test_a_program_may_end_while_flows_are_busy_and_callbacks_run() -> None:
    assert said(
        run(
            """
            relay.on_ended(lambda flow: time.sleep(0.01))
            relay.start()
            address = relay.endpoints[0].address

            def work():
                while True:
                    try:
                        with connect(address) as client:
                            says(client)
                    except OSError:
                        pass

            for _ in range(4):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.3)
            print("end")
            """
        )
    ) == ["end"]


def test_a_callback_that_hangs_does_not_keep_the_program() -> None:
    done = run(
        """
        hanging = threading.Event()
        relay.on_ended(lambda flow: (hanging.set(), time.sleep(60)))
        relay.start()
        with connect(relay.endpoints[0].address) as client:
            says(client)
        assert hanging.wait(5)
        """,
        timeout=15,
    )
    assert said(done) == []


def test_an_unhandled_error_is_shown_and_ends_the_program() -> None:
    done = run("relay.start()\nraise LookupError('mine')")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("LookupError: mine")


def test_sys_exit_within_the_context_manager() -> None:
    done = run(
        """
        async def serve():
            async with relay:
                sys.exit(3)
        asyncio.run(serve())
        """
    )
    assert (done.returncode, done.stderr) == (3, "")


SERVE_FOR_EVER = {
    "asyncio": """
        async def serve():
            async with relay:
                print("ready", flush=True)
                await asyncio.Event().wait()
        try:
            asyncio.run(serve())
        finally:
            print("running" if relay.running else "stopped")
        """,
    "threads": """
        relay.start()
        try:
            print("ready", flush=True)
            while True:
                time.sleep(60)
        finally:
            relay.stop()
            print("running" if relay.running else "stopped")
        """,
    "draining": """
        def tell():
            while "draining" not in repr(relay):
                time.sleep(0.001)
            print("ready", flush=True)

        relay.start()
        client = connect(relay.endpoints[0].address)
        says(client)
        try:
            threading.Thread(target=tell).start()
            relay.stop(drain=60)
        finally:
            print("running" if relay.running else "stopped")
        """,
}


@pytest.mark.parametrize("way", SERVE_FOR_EVER)
def test_ctrl_c_stops_the_relay_and_the_program(way: str) -> None:
    with echo_server() as port:
        program = PROLOGUE + textwrap.dedent(SERVE_FOR_EVER[way])
        running = subprocess.Popen(
            [sys.executable, "-c", program, f"127.0.0.1:{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with running:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=10)
    assert running.returncode in (1, -signal.SIGINT)
    assert out == "stopped\n"
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_the_child_of_a_fork_can_not_use_the_relay_and_can_start_its_own() -> None:
    lines = said(
        run(
            """
            relay.start()
            address = relay.endpoints[0].address
            child = os.fork()
            if child == 0:
                assert not relay.running
                for call in (relay.flows, relay.stats, lambda: relay.apply_sync([])):
                    try:
                        call()
                    except qanat.EngineClosed as error:
                        print(error)
                assert relay.stop() == 0
                own = qanat.Relay([endpoint])
                own.start()
                with connect(own.endpoints[0].address) as client:
                    print("child", says(client))
                own.stop()
                relay.start()
                with connect(relay.endpoints[0].address) as client:
                    print("again", says(client))
                relay.stop()
                sys.exit(0)
            print("exit", os.waitpid(child, 0)[1])
            with connect(address) as client:
                print("parent", says(client))
            relay.stop()
            """,
            *FORKING,
        )
    )
    reason = "this process is a fork of the one in which the relay was started"
    assert lines == [
        *([reason] * 3),
        "child b'hello'",
        "again b'hello'",
        "exit 0",
        "parent b'hello'",
    ]


def test_the_child_of_a_fork_holds_no_port_and_no_flow_open() -> None:
    lines = said(
        run(
            """
            relay.start()
            address = relay.endpoints[0].address
            client = connect(address)
            says(client)
            fds = set(descriptors()) - set(before) - {client.fileno()}
            asked, answer = os.pipe()
            child = os.fork()
            if child == 0:
                left = fds & set(descriptors())
                print("left", sorted(descriptors()[fd] for fd in left), flush=True)
                os.close(answer)
                os.read(asked, 1)
                os._exit(0)
            os.close(asked)
            (flow,) = relay.flows()
            relay.kill(flow.id)
            print("cut", says(client))
            client.close()
            relay.stop()
            try:
                connect(address)
            except ConnectionRefusedError:
                print("closed")
            os.close(answer)
            print("exit", os.waitpid(child, 0)[1])
            """,
            *FORKING,
        )
    )
    assert sorted(lines) == ["closed", "cut b''", "exit 0", "left []"]


def test_forking_under_load_leaves_parent_and_children_well() -> None:
    lines = said(
        run(
            """
            relay.on_ended(lambda flow: None)
            relay.start()
            address = relay.endpoints[0].address
            over = threading.Event()

            def work():
                while not over.is_set():
                    with connect(address) as client:
                        assert says(client) == b"hello"

            workers = [threading.Thread(target=work) for _ in range(3)]
            for worker in workers:
                worker.start()
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    own = qanat.Relay([endpoint])
                    own.start()
                    own.stop()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            over.set()
            for worker in workers:
                worker.join()
            relay.stop()
            print("well")
            """,
            *FORKING,
        )
    )
    assert lines == ["well"]


def test_a_child_by_multiprocessing_ends_without_a_word() -> None:
    assert said(
        run(
            """
            import multiprocessing

            def work():
                assert not relay.running

            relay.start()
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
            print(process.exitcode)
            relay.stop()
            """,
            *FORKING,
        )
    ) == ["0"]


def test_programs_that_are_started_inherit_nothing() -> None:
    lines = said(
        run(
            """
            import subprocess
            relay.start()
            client = connect(relay.endpoints[0].address)
            says(client)
            listing = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, close_fds=False)
            inherited = {int(name) for name in listing.stdout.split()}
            print(sorted(inherited & (set(descriptors()) - set(before))))
            client.close()
            relay.stop()
            """
        )
    )
    # The listing itself has one open, on the lowest number that is free.
    assert len(lines[0].strip("[]").split()) <= 1


@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "dev"])
def test_a_relay_may_be_stopped_at_exit_by_the_program_itself(options: tuple[str, ...]) -> None:
    assert said(
        run(
            """
            import atexit
            relay.start()
            client = connect(relay.endpoints[0].address)
            says(client)
            atexit.register(client.close)
            atexit.register(lambda: print("cut", relay.stop()))
            atexit.register(lambda: print("open", relay.open_flows()))
            """,
            *options,
        )
    ) == ["open 1", "cut 1"]


def test_the_relay_serves_while_other_threads_keep_the_program_alive() -> None:
    assert said(
        run(
            """
            def later():
                threading.main_thread().join()
                with connect(relay.endpoints[0].address) as client:
                    print(says(client))

            relay.start()
            threading.Thread(target=later).start()
            """
        )
    ) == ["b'hello'"]


def test_a_relay_that_was_not_started_costs_no_thread_and_no_descriptor() -> None:
    lines = said(run("print(threading.active_count(), sorted(set(descriptors()) - set(before)))"))
    assert lines == ["1 []"]
