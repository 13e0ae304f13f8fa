"""The native engine. Private: the public face is ``qanat.Relay``.

Structured values cross this border as JSON text whose names are those of ``qanat.plan`` (in) and
``qanat.observe.flow`` (out). Every call releases the GIL while it waits. Handles are never reused.
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
        """JSON array of the live flows (see ``qanat.observe.flow.Flow``)."""
    def kill(self, group: int, flow: int) -> bool:
        """End one flow now (reset on both legs); False if there is no such flow."""
    def kill_all(self, group: int) -> int:
        """End every flow of the group now, reason ``shutdown``; how many there were."""
    def stats(self, group: int) -> str:
        """JSON of counters (see ``qanat.observe.stats.Stats``)."""
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

    A *leg* is a socket that the engine owns and Python speaks through, in the clear or by TLS; a
    *flow* is two legs whose bytes the engine moves by itself. What happens to them is reported
    here:

    * ``connected`` (a dialled leg): ``peer``, ``local``
    * ``shaken`` (a leg, after its handshake): ``version``, ``cipher``, ``sni``, ``alpn``,
      ``client_certificate`` (its subject), ``resumed``; ``hello`` if the plan wants it: the
      ClientHello message in hexadecimal, without record headers; ``certificate`` after
      ``tls_connect``: the target's in hexadecimal DER
    * ``failed`` (a leg; the handle is gone with it): ``code``, ``errno``, ``text``. Codes: those of
      flows that can't connect, such as ``connect_refused``; ``tls``, ``handshake_timeout``,
      ``closed``, ``reset``, ``broken``
    * ``readable``, ``writable``, ``drained`` (a leg): nothing, once, after they were asked for
    * ``accepted`` (a listener): ``leg``, ``peer``, ``local``, ``tls`` (as in ``shaken``, or null)
    * ``asks`` (an association): ``target`` (``host:port``), which is to be allowed or denied
    * ``answered`` (an exchange that tells): ``method``, ``status``, ``up``, ``down``, ``seconds``
    * ``ended`` (a flow, an association): ``reason``, ``detail``, ``up``, ``down``, ``packets_up``,
      ``packets_down``, ``seconds``

    A desk belongs to a group of the engine, whose limits and counters hold for its flows. It may be
    used from any thread. When a call raises, what it was given was not taken: the caller still owns
    the descriptors. After success they are the engine's: ``socket.detach()`` them.

    Common codes: ``plan``, ``descriptor`` (no socket of the kind, or the engine's already),
    ``closed`` (desk, or no such leg), ``full`` (reports wait to be fetched), ``busy`` (the leg is
    being connected or shakes hands)."""

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
    def exchange(
        self,
        client_fd: int,
        target_fd: int,
        plan: str,
        unread: bytes | bytearray | memoryview | None = None,
    ) -> int:
        """Two sockets become a flow that exchanges messages of HTTP (ExchangePlan), until one comes
        that is out of the ordinary. ``unread`` was read from the client before."""
    def recover(self, flow: int) -> tuple[int, int, bytes, bytes, bytes, str, int, int] | None:
        """What an exchange has left at its end, once: the descriptors of client and target, which
        are the caller's now, or -1; bytes of the client that have not gone on; the head of a
        request that has, and was not answered; what has come of the answer; why; how many requests
        were answered; how many bytes of the unanswered one have gone on."""
    def adopt(self, fd: int, unread: bytes | bytearray | memoryview | None = None) -> int:
        """A leg over a connected TCP or Unix stream socket. ``unread`` was read from it and belongs
        before what it still holds."""
    def dial(self, plan: str) -> int:
        """A leg over a connection that is made now (DialPlan): ``connected`` or ``failed``."""
    def listen(self, plan: str, fd: int = -1) -> tuple[int, str]:
        """Accept connections as legs (DeskListenPlan): a handle and the address. ``fd`` is a socket
        that listens already. Code ``bind``."""
    def close_listener(self, listener: int) -> None:
        """Close the socket, and reset the connections whose reports were not fetched."""
    def tls_accept(
        self, leg: int, plan: str, unread: bytes | bytearray | memoryview | None = None
    ) -> None:
        """Shake hands with a client (TlsAcceptPlan): ``shaken`` or ``failed``. ``unread`` was read
        from the leg before. What was written before goes out before."""
    def tls_connect(self, leg: int, plan: str) -> None:
        """Shake hands with a target (TlsConnectPlan)."""
    def read(self, leg: int, most: int) -> bytes | None:
        """What has come, up to ``most`` bytes; empty at the end, for ever. None: nothing yet, and
        ``readable`` follows once. Up to 128 KiB are read ahead, from the first call on. Codes
        ``reset``, ``broken``, ``tls``."""
    def write(self, leg: int, data: bytes | bytearray | memoryview) -> int:
        """How many bytes were taken. Up to 128 KiB wait; when not all were taken, ``writable``
        follows once half of that is free. Codes as for ``read``, and ``finished``."""
    def finish(self, leg: int) -> None:
        """Our end of the stream, behind everything written; reading goes on."""
    def drained(self, leg: int) -> bool:
        """Whether the kernel has everything written; if not, ``drained`` follows once."""
    def close(self, leg: int) -> None:
        """An orderly end in the background: everything written, our end, up to 5 s for the peer's.
        The handle is gone at once. A leg that is gone already is no error."""
    def abort(self, leg: int) -> None:
        """Reset now, in any state; no report about it follows."""
    def join(
        self,
        client: int,
        target: int,
        plan: str,
        unread_client: bytes | bytearray | memoryview | None = None,
        unread_target: bytes | bytearray | memoryview | None = None,
    ) -> int:
        """Two legs become a flow (JoinPlan), as with ``lower``; the handles are gone. Everything
        written to them goes out first, then what is unread, then what the engine has read ahead."""
    def lower(
        self,
        client_fd: int,
        target_fd: int,
        plan: str,
        unread_client: bytes | bytearray | memoryview | None = None,
        unread_target: bytes | bytearray | memoryview | None = None,
    ) -> int:
        """``adopt``, ``adopt`` and ``join`` in one: two connected stream sockets become a flow
        (JoinPlan), whose number in ``Engine.flows`` is returned. ``unread_client`` was read from
        the client and not used: it goes to the target before what the socket still holds;
        ``unread_target`` likewise.

        Further codes: ``limit`` (of the group), ``unknown`` (endpoint)."""
    def counters(self, flow: int) -> tuple[int, int] | None:
        """Bytes up and down until now; None when the flow has ended. Asks the flow's worker."""
    def cut(self, flow: int) -> None:
        """End a flow now: both legs are reset, and ``ended`` is reported with ``killed``."""
    def associate(self, plan: str) -> tuple[int, str]:
        """A UDP association of a SOCKS5 client (AssociatePlan): its number in ``Engine.flows``, and
        the ``ip:port`` that the client sends to. ``asks`` is reported once for each target that the
        client names, and its first datagrams wait for the answer. Malformed datagrams, fragments,
        and those of anybody but the client are dropped and counted. Answers come back from the
        addresses of allowed targets alone, ports included.

        Codes: ``plan``, ``bind``, ``limit`` (of the group), ``unknown`` (endpoint), ``full``,
        ``closed``."""
    def allow(self, association: int, target: str, address: str) -> None:
        """The answer to ``asks``: datagrams for this target go to ``address`` (``ip:port``). A
        target that nobody waits for is none, and changes nothing."""
    def deny(self, association: int, target: str, reason: str) -> None:
        """The other answer: datagrams for this target are dropped for ten seconds, after which the
        next one is asked about again. They are counted by ``reason``, which is one of
        ``qanat.observe.reasons.DROPPED``."""
    def release(self, association: int) -> None:
        """The client has gone: end its association. ``ended`` is reported with
        ``client_closed``; ``cut`` would say ``killed``."""
    def set_rates(self, key: str, up: float | None, down: float | None) -> None:
        """Limit all flows of the group whose plan names this key, together, living ones too, in
        bytes per second. A name is forgotten when it has neither limits nor flows. ``full`` when
        65,536 names are known."""
    def spend(self, key: str, up: int, down: int) -> float:
        """Python has moved bytes under the limits of this key: how many seconds to wait before it
        moves more."""
    def shutdown(self) -> None:
        """Cut the flows, close everything else of this desk and return when it is done."""
