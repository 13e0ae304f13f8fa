"""The native engine. Private: the public face is ``qanat.Relay``.

Structured values cross this border as JSON text whose names are those of ``qanat.plan`` (in) and
``qanat.relay.flow`` (out). Every call releases the GIL while it waits. Handles are never reused.
"""

from typing import final

__version__: str

class EngineError(Exception):
    """``code`` is stable, ``errno`` is the kernel's or None; ``args[0]`` is a sentence."""

    code: str
    errno: int | None

def build_info() -> str:
    """JSON: version, profile ("debug" or "release"), target, rustc, features."""

def abilities() -> str:
    """JSON: what this kernel lets us do: mptcp, splice, pipe_max, udp_gso, udp_gro, reuseport,
    bindtodevice, each true/false or a number."""

@final
class Engine:
    """Worker threads and everything they carry. One per process is enough."""

    def __init__(self, workers: int = 0, pipe_size: int = 0) -> None:
        """``workers`` 0 means one per core; ``pipe_size`` 0 adapts up to 1 MiB, another value (in
        bytes) is the size of every splice pipe."""
    @property
    def workers(self) -> int: ...
    def open_group(self, limits: str) -> int:
        """A group holds the endpoints of one relay; ``limits`` (LimitsPlan) bound all of them
        together."""
    def set_group_limits(self, group: int, limits: str) -> None: ...
    def watch_group(self, group: int, ended: bool) -> None:
        """Whether the records of ended flows of this group are wanted as events (off at first)."""
    def close_group(self, group: int) -> None:
        """Close the listeners and flows of the group now and forget it."""
    def bind(
        self,
        group: int,
        plan: str,
        tcp_fd: int = -1,
        udp_fd: int = -1,
        takeover: bool = False,
    ) -> tuple[int, str | None, str | None]:
        """Bind and listen for one endpoint (EndpointPlan) without serving it yet: its handle, its
        TCP and UDP addresses (the kernel's port in place of 0). ``tcp_fd`` and ``udp_fd`` are
        inherited sockets to use (the engine owns them from then on); ``takeover`` allows the
        address to be bound while an older endpoint of this process still holds it.

        Raises EngineError with code ``bind`` or ``plan``; nothing is left behind."""
    def start(self, handles: list[int]) -> None:
        """Serve bound endpoints."""
    def update(self, handle: int, plan: str, drain: float = -1.0) -> None:
        """New flows go by ``plan`` (the listening sockets stay); flows of the old plan live on, or
        for ``drain`` seconds when that is not negative."""
    def close(self, handle: int, drain: float = -1.0) -> None:
        """Stop listening. The flows live on, or for ``drain`` seconds when not negative (0 cuts
        them now)."""
    def flows(self, group: int) -> str:
        """JSON array of the live flows (see ``qanat.relay.flow.Flow``)."""
    def kill(self, group: int, flow: int) -> bool:
        """End one flow now (reset on both legs); False if there is no such flow."""
    def kill_all(self, group: int) -> int:
        """End every flow of the group now, reason ``shutdown``; how many there were."""
    def stats(self, group: int) -> str:
        """JSON of counters (see ``qanat.relay.stats.Stats``)."""
    def open_flows(self, group: int) -> int:
        """How many flows are alive, cheaply (for draining)."""
    def flush_resolvers(self) -> None:
        """Forget all cached names (after a reload)."""
    def next_events(self, timeout: float) -> list[str]:
        """Block up to ``timeout`` seconds for events: JSON objects with ``kind``, ``group``:

        * ``ended``: a flow record as in ``flows``, with ``reason`` and ``detail``
        * ``notice``: ``endpoint``, ``code``, ``text``, ``count`` (repeats are counted, not repeated
          more than once a second)
        * ``lost``: ``count`` of ended records dropped because nobody fetched them in time

        Returns an empty list on time-out; raises EngineError("closed") after shutdown."""
    def listen_to_questions(self) -> int:
        """A descriptor that is readable while questions about flows wait (to be watched, not read).
        Before the first call nobody is asked, and the hooks of flows count as failed."""
    def take_questions(self) -> list[str]:
        """Some of the questions that wait (JSON: ``id`` of the flow, ``group``, ``endpoint``,
        ``call`` and ``remotes`` of the plan, ``client``, ``via``, ``listener``, ``timeout`` in
        seconds or null, ``first_bytes`` in hexadecimal). Never blocks."""
    def answer(self, answers: str) -> None:
        """JSON array of answers: ``id`` and ``answer``, which is ``allow``, ``remote`` with
        ``index``, or ``refuse`` or ``failed`` with ``reason``. Late ones are dropped."""
    def shutdown(self) -> None:
        """Close everything and join the threads; idempotent."""
    def after_fork_in_child(self) -> None:
        """Close the child's copies of every descriptor of the engine and make it unusable."""

@final
class Desk:
    """What Python holds between accepting a connection and letting it go; one for each event loop.

    A *leg* is a socket that the engine owns and Python speaks through; a *flow* is two legs whose
    bytes the engine moves by itself. What happens to them is reported here:

    * ``ended`` (a flow): ``reason``, ``detail``, ``up``, ``down``, ``packets_up``,
      ``packets_down``, ``seconds``

    A desk belongs to a group of the engine, whose limits and counters hold for its flows. It may be
    used from any thread. When a call raises, what it was given was not taken: the caller still owns
    the descriptors."""

    def __init__(self, engine: Engine, group: int, waiting: int = 65_536) -> None:
        """While ``waiting`` reports wait to be fetched, nothing new is begun (code ``full``)."""
    def fileno(self) -> int:
        """A descriptor that is readable while reports wait (to be watched, not read)."""
    def take(self) -> list[tuple[int, str, str]]:
        """Some of the reports that wait, in order: handle, kind, and JSON or nothing. Never blocks.
        Reports about what was aborted meanwhile are left out."""
    def endpoint(self, name: str, listen: str) -> int:
        """A row in the statistics and flow lists of the group, for flows that Python accepts.
        ``listen`` (``ip:port``, else nothing) is what records show."""
    def close_endpoint(self, endpoint: int) -> None:
        """The row goes when its flows have ended."""
    def lower(
        self,
        client_fd: int,
        target_fd: int,
        plan: str,
        unread_client: bytes | bytearray | memoryview | None = None,
        unread_target: bytes | bytearray | memoryview | None = None,
    ) -> int:
        """Two connected stream sockets become a flow (JoinPlan), whose number in ``Engine.flows``
        is returned. ``unread_client`` was read from the client and not used: it goes to the target
        before what the socket still holds; ``unread_target`` likewise. From now on the engine owns
        both descriptors (``socket.detach()`` them).

        Codes: ``plan``, ``descriptor``, ``limit`` (of the group), ``unknown`` (endpoint), ``full``,
        ``closed``."""
    def counters(self, flow: int) -> tuple[int, int] | None:
        """Bytes up and down until now; None when the flow has ended. Asks the flow's worker."""
    def cut(self, flow: int) -> None:
        """End a flow now: both legs are reset, and ``ended`` is reported with ``killed``."""
    def set_rates(self, key: str, up: float | None, down: float | None) -> None:
        """Limit all flows of the group whose plan names this key, together, living ones too, in
        bytes per second. A name is forgotten when it has neither limits nor flows. ``full`` when
        65,536 names are known."""
    def shutdown(self) -> None:
        """Cut the flows, close everything else of this desk and return when it is done."""
