"""``qanat proxy`` as a program: from a loaded configuration to an exit code.

What may fail is tried before anything is served: files, log, our own sockets, every address.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from qanat.config.address import AddressError, parse_listen
from qanat.config.proxy import FORMS
from qanat.config.proxy_file import LoadedProxy
from qanat.errors import ConfigError, ControlError, QanatError
from qanat.observe.logs import DEFAULT_LEVEL, DEFAULT_OUTPUT, Logs, LogSettings
from qanat.observe.notify import Notifier
from qanat.process.control_socket import ControlSocket
from qanat.process.daemon import raise_descriptor_limit
from qanat.process.listeners import listen_on
from qanat.process.signals import Signals
from qanat.proxy.accounts import Accounts
from qanat.proxy.auth import HashedUsers
from qanat.proxy.rules import RulesInForce
from qanat.proxy.serving import Bound, Prepared, Serving, prepare
from qanat.proxy.stacks import Policy, connector
from qanat.stack.listening import Listening
from qanat.stack.service import Service, describe

__all__ = ["run"]

_logger = logging.getLogger("qanat.proxy")


def run(
    loaded: LoadedProxy,
    read: Callable[[], LoadedProxy],
    *,
    app: str | None = None,
    app_listen: Sequence[str] = (),
    describe_only: bool = False,
) -> int:
    """Serve until stopped; the exit code.

    :raises QanatError: it can't start, and nothing of it is left behind.
    """
    service = None if app is None else _app(app)
    if describe_only:
        _describe(prepare(loaded), service)
        return 0
    with ExitStack() as stack:
        notifier = Notifier()
        signals = Signals()
        stack.callback(signals.ignore)
        logs = _logs(loaded, stack)
        prepared = prepare(loaded)
        for problem in prepared.warnings():
            _logger.warning("%s", problem)
        raise_descriptor_limit(None)
        pages = _pages(loaded, stack)
        bound = _bound(loaded, app_listen, stack)
        signals.hold()
        cut = asyncio.run(_serve(prepared, bound, service, logs, signals, notifier, pages, read))
        if cut:
            sys.stderr.write(f"stopped; cut {cut} connection{'' if cut == 1 else 's'}\n")
    return 0


def _describe(prepared: Prepared, service: Service[Any, object] | None) -> None:
    """What would be served, and how targets are reached."""
    if service is not None:
        sys.stdout.write(describe(service) + "\n")
        return
    config = prepared.config
    policy = Policy(
        RulesInForce(prepared.rules),
        Accounts(prepared.allowance),
        None if prepared.users is None else HashedUsers({}),
        list,
        lambda bridge, report: None,
        lambda request: None,
    )
    for form in FORMS:
        for text in getattr(config, form):
            secure = " in TLS" if config.tls else ""
            sys.stdout.write(f"{form} {text}{secure}\n")
    sys.stdout.write(describe(connector(config, policy)) + "\n")


async def _serve(
    prepared: Prepared,
    bound: Sequence[Bound],
    service: Service[Any, object] | None,
    logs: Logs,
    signals: Signals,
    notifier: Notifier,
    pages: Sequence[tuple[socket.socket, str]],
    read: Callable[[], LoadedProxy],
) -> int:
    import qanat

    def reread() -> tuple[Prepared, LogSettings]:
        loaded = read()
        return prepare(loaded), _log_settings(loaded)

    return await Serving(
        prepared,
        bound,
        app=service,
        logs=logs,
        signals=signals,
        notifier=notifier,
        pages=pages,
        version=qanat.__version__,
        reread=reread,
        ready=_tell,
    ).run()


def _tell(listeners: Sequence[Listening]) -> None:
    for listener in listeners:
        sys.stdout.write(f"{listener.name}: listening\n")
    sys.stdout.flush()


def _log_settings(loaded: LoadedProxy) -> LogSettings:
    log = loaded.config.log
    given = log.model_fields_set
    settings = LogSettings(DEFAULT_LEVEL, DEFAULT_OUTPUT, log.format)
    if "level" in given:
        settings = replace(settings, level=log.level, output="stdout")
    if "output" in given:
        settings = replace(settings, output=log.output)
    return settings


def _logs(loaded: LoadedProxy, stack: ExitStack) -> Logs:
    settings = _log_settings(loaded)
    try:
        logs = Logs(settings)
    except OSError as error:
        problem = loaded.problem(
            ("log", "output"), f"can't be opened: {error.strerror}", value=settings.output
        )
        raise ConfigError([problem]) from error
    stack.callback(logs.close)
    return logs


def _pages(loaded: LoadedProxy, stack: ExitStack) -> list[tuple[socket.socket, str]]:
    """The sockets by which we are looked at."""
    config = loaded.config
    pages = []
    if config.metrics is not None:
        try:
            listener = listen_on(config.metrics)
        except OSError as error:
            reason = error.strerror or str(error)
            raise QanatError(
                f"metrics: can't listen on {config.metrics}: {reason}", code="bind"
            ) from error
        stack.callback(listener.close)
        pages.append((listener, "metrics"))
    if config.control is not False:
        try:
            control = ControlSocket(None if config.control is True else Path(str(config.control)))
        except ControlError as error:
            if config.control is not True:
                raise
            _logger.warning("%s; the proxy runs without one", error)
        else:
            stack.callback(control.remove)
            pages.append((control.listener, "control"))
    return pages


def _bound(loaded: LoadedProxy, app_listen: Sequence[str], stack: ExitStack) -> list[Bound]:
    """:raises ConfigError: an address can't be listened on."""
    wanted = [(form, text) for form in FORMS for text in getattr(loaded.config, form)]
    wanted += [("app", text) for text in app_listen]
    bound = []
    for form, text in wanted:
        try:
            sock = _listening(text)
        except (OSError, AddressError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            problem = loaded.problem((form,), f"can't listen: {reason}", value=text)
            raise ConfigError([problem]) from error
        stack.callback(sock.close)
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        bound.append(Bound(form, f"{form} {shown}", sock))
    return bound


def _listening(text: str) -> socket.socket:
    parsed = parse_listen(f"[::]{text}" if text.startswith(":") else text)
    found = socket.getaddrinfo(
        str(parsed.host), parsed.ports.first, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, place = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(place)
        sock.listen(4096)
    except BaseException:
        sock.close()
        raise
    return sock


def _app(name: str) -> Service[Any, object]:
    """``module:name``, looked for beside the working directory first, as Python itself does."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise QanatError(f"--app {name}: write it as module:name", code="app")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise QanatError(f"--app {name}: {error}", code="app") from error
    if not callable(found):
        raise QanatError(f"--app {name} is {found!r}, which is no service", code="app")
    service: Service[Any, object] = found
    return service
