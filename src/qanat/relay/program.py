"""A relay as a program: from a loaded configuration to an exit code.

The order matters. What may fail is tried before anything is served: log, pid file, our own sockets,
every endpoint. What costs time to import comes after the endpoints listen. Signals are taken from
the first moment on. Knows the configuration, the relay, and what a process is made of.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO

from qanat.config.models import Config, Endpoint
from qanat.errors import BindError, ConfigError, ControlError, Problem, QanatError
from qanat.observe.logs import DEFAULT_LEVEL, DEFAULT_OUTPUT, LEVELS, Logs, LogSettings
from qanat.observe.notices import write_notice
from qanat.observe.notify import InheritedSocket, Notifier, inherited_sockets
from qanat.process.control_socket import ControlSocket
from qanat.process.daemon import Detached, PidFile, detach, raise_descriptor_limit
from qanat.process.listeners import Listeners, listen_on
from qanat.process.signals import Signals
from qanat.process.watch import fingerprint
from qanat.relay.flow_log import FlowLog
from qanat.relay.relay import Relay
from qanat.relay.start_lines import (
    descriptors_line,
    dns_line,
    endpoint_line,
    log_line,
    pipe_line,
)

if TYPE_CHECKING:
    from qanat.config.load import Loaded
    from qanat.relay.serving import Rereading

__all__ = ["QUICK_START", "ProgramOptions", "log_settings", "run"]

QUICK_START: Final = "127.0.0.1:8000"
_PORT_TAKEN: Final = (
    f"the quick start needs {QUICK_START}, and another program listens there. "
    "Find it with: ss -ltnp 'sport = :8000'. Or relay something else: "
    "qanat relay -l 127.0.0.1:8001 -r example.com:80"
)

_logger = logging.getLogger("qanat.relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramOptions:
    """What the command line says beside the configuration; it wins over it."""

    reloader: Callable[[], Loaded]
    """Reads the configuration again, as the command line would have it."""
    watch: bool = False
    drain: float | None = None
    control: str | Literal[False] | None = None
    metrics: str | None = None
    daemon: bool = False
    pid_file: str | None = None
    nofile: int | None = None
    config_paths: Sequence[Path] = ()
    log_format: Literal["text", "json"] | None = None
    quickstart: bool = False


def run(loaded: Loaded, options: ProgramOptions) -> int:
    """Run the relay until it is stopped; the exit code.

    :raises QanatError: it can't start, and nothing of it is left behind.
    """
    with ExitStack() as stack:
        return _Program(loaded, options, stack).run()


def log_settings(config: Config, options: ProgramOptions) -> LogSettings:
    """What the configuration says, and warnings on stderr where it says nothing: a relay that
    fails in silence would be no help. With a level but no output it is stdout, as for realm."""
    given = config.log.model_fields_set
    level, output = DEFAULT_LEVEL, DEFAULT_OUTPUT
    if options.quickstart:
        level = "info"
    if "level" in given:
        level, output = config.log.level, "stdout"
    if "output" in given:
        output = config.log.output
    return LogSettings(level, output, options.log_format or config.log.format)


class _Program:
    """One start of a relay. Whatever is opened is closed by ``stack``, in reverse."""

    def __init__(self, loaded: Loaded, options: ProgramOptions, stack: ExitStack) -> None:
        self._loaded = loaded
        self._options = options
        self._stack = stack
        self._page_address = ""
        self._watched = options.config_paths if options.watch else ()
        self._known_files = fingerprint(self._watched)

    def run(self) -> int:
        # These variables are about this process, so they are read before it may become another.
        given = inherited_sockets()
        notifier = Notifier()
        detached = detach() if self._options.daemon else None
        signals = Signals()
        # The process ends with us: not even its last moments are to be disturbed.
        self._stack.callback(signals.ignore)
        logs = self._open_logs()
        if self._options.pid_file is not None:
            self._stack.callback(PidFile(Path(self._options.pid_file)).remove)
        limits = raise_descriptor_limit(self._options.nofile)
        listeners = self._bind_our_own()
        relay = Relay(config=self._usable(self._loaded.config))
        relay.on_notice(write_notice)
        flow_log = FlowLog(relay, logs)
        self._start(relay, given)
        signals.hold()
        self._print(relay, logs.settings, limits)
        self._tell_warnings(logs.settings)
        cut = self._serve(relay, logs, flow_log, signals, notifier, listeners, detached)
        if cut:
            flows = "1 flow" if cut == 1 else f"{cut} flows"
            _say(sys.stderr, f"stopped; cut {flows} that had not ended")
        return 0

    def _open_logs(self) -> Logs:
        settings = log_settings(self._loaded.config, self._options)
        try:
            logs = Logs(settings)
        except OSError as error:
            raise ConfigError([_unopenable(settings, error)]) from error
        self._stack.callback(logs.close)
        return logs

    def _bind_our_own(self) -> Listeners:
        """The sockets by which we are looked at. They are served once the endpoints are."""
        config, options = self._loaded.config, self._options
        bound: dict[str, socket.socket] = {}
        if options.quickstart:
            bound["status_page"] = self._opened("status page", "127.0.0.1:0")
            host, port = bound["status_page"].getsockname()
            self._page_address = f"{host}:{port}"
        metrics = config.metrics if options.metrics is None else options.metrics
        if metrics is not None:
            bound["metrics"] = self._opened("metrics", metrics)
        control = self._control(config.control if options.control is None else options.control)
        if control is not None:
            self._stack.callback(control.remove)
            bound["control"] = control.listener
        return Listeners(**bound)

    def _control(self, wanted: str | bool) -> ControlSocket | None:
        if wanted is False:
            return None
        if isinstance(wanted, str):
            return ControlSocket(Path(wanted))
        try:
            return ControlSocket()
        except ControlError as error:
            # Nobody asked for it: a read-only system or a crowded place is no reason not to relay.
            _logger.warning("%s; the relay runs without one", error)
            return None

    def _opened(self, what: str, address: str) -> socket.socket:
        try:
            listener = listen_on(address)
        except OSError as error:
            reason = error.strerror or str(error)
            raise QanatError(f"{what}: can't listen on {address}: {reason}", code="bind") from error
        self._stack.callback(listener.close)
        return listener

    def _usable(self, config: Config) -> Config:
        """The configuration as it is run: with something to do."""
        if self._options.quickstart:
            endpoint = Endpoint(
                name="quick-start",
                listen=QUICK_START,
                remote=self._page_address,
            )
            return config.model_copy(update={"endpoints": [endpoint]})
        if not config.endpoints:
            paths = ", ".join(str(path) for path in self._options.config_paths)
            raise ConfigError(
                [
                    Problem(
                        "there is nothing to relay",
                        file=paths or None,
                        key="endpoints",
                        hint="at least one endpoint with listen and remote is needed",
                    )
                ]
            )
        return config

    def _start(self, relay: Relay, given: Sequence[InheritedSocket]) -> None:
        names = {endpoint.name for endpoint in relay.config.endpoints}
        inherited = {
            f"{sock.protocol}://{sock.name if sock.name in names else sock.address}": (
                sock.descriptor
            )
            for sock in given
        }
        try:
            relay.start(inherited=inherited)
        except BindError as error:
            if self._options.quickstart and error.errno == errno.EADDRINUSE:
                raise QanatError(_PORT_TAKEN, code="bind") from error
            raise
        self._stack.callback(relay.stop)

    def _print(self, relay: Relay, logs: LogSettings, limits: tuple[int, int]) -> None:
        lines = [descriptors_line(*limits)]
        if relay.config.pipe_page is not None:
            lines.append(pipe_line(relay.config.pipe_page))
        lines.append(log_line(logs.level, logs.output))
        if relay.endpoints:
            lines.append(dns_line(relay.endpoints[0].plan.resolver))
        lines += [endpoint_line(entry.plan, entry.address) for entry in relay.endpoints]
        if self._options.quickstart:
            lines += ["", f"Now try: curl {QUICK_START}   (Ctrl-C ends it)"]
        _say(sys.stdout, "\n".join(lines))

    def _tell_warnings(self, logs: LogSettings) -> None:
        """In the log, and to whoever started us if that would not show there."""
        for problem in self._loaded.warnings:
            _logger.warning("%s", problem, extra={"kind": str(problem)})
            if logs.output != "stderr" or LEVELS[logs.level] > logging.WARNING:
                _say(sys.stderr, f"warning: {problem}")
        if self._options.daemon and logs.output in ("stdout", "stderr") and logs.level != "off":
            _say(
                sys.stderr,
                f"warning: a daemon has no {logs.output}: nobody will see its log "
                "without --log-output PATH",
            )

    def _serve(
        self,
        relay: Relay,
        logs: Logs,
        flow_log: FlowLog,
        signals: Signals,
        notifier: Notifier,
        listeners: Listeners,
        detached: Detached | None,
    ) -> int:
        import asyncio

        import qanat
        from qanat.relay.serving import Serving

        async def serve() -> int:
            return await Serving(
                relay,
                logs=logs,
                flow_log=flow_log,
                signals=signals,
                notifier=notifier,
                listeners=listeners,
                version=qanat.__version__,
                reread=self._reread,
                drain=self._drain(self._loaded.config),
                watched=self._watched,
                known_files=self._known_files,
                ready=detached.ready if detached is not None else lambda: None,
            ).run()

        return asyncio.run(serve())

    def _reread(self) -> Rereading:
        from qanat.relay.serving import Rereading

        loaded = self._options.reloader()
        return Rereading(
            config=self._usable(loaded.config),
            logs=log_settings(loaded.config, self._options),
            drain=self._drain(loaded.config),
            warnings=loaded.warnings,
        )

    def _drain(self, config: Config) -> float:
        return config.drain if self._options.drain is None else self._options.drain


def _unopenable(settings: LogSettings, error: OSError) -> Problem:
    reason = error.strerror or str(error)
    return Problem(f"can't be opened: {reason}", key="log.output", value=settings.output)


def _say(stream: TextIO | None, text: str) -> None:
    """To whoever started us; if nobody reads, so be it."""
    if stream is None:
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except (OSError, ValueError):
        return
