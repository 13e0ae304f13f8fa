"""Hooks as a configuration names them: functions found, loaded and loaded again.

Runs the user's files and modules when it loads them, and knows nothing of flows. A file is run
anew when its content has changed; what fails to load leaves what was loaded before as it is.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

from qanat.errors import ConfigError, Problem
from qanat.plan import EndpointPlan

__all__ = ["NO_HOOKS", "Hook", "Hooks", "load_hooks"]

_LARGEST: Final = 4 * 2**20
"""Bytes of one file."""


@dataclass(frozen=True, eq=False, slots=True)
class Hook:
    """One function that decides."""

    call: str
    """As in the plan."""
    function: Callable[[Any], Any]
    waits: bool
    """Whether it is a coroutine function: otherwise it runs on a thread."""


@dataclass(frozen=True, slots=True)
class _Home:
    """What a file or module came to when it was run."""

    module: ModuleType
    path: str | None
    """None for what has no source that could change."""
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one configuration."""

    by_call: Mapping[str, Hook] = field(default_factory=lambda: MappingProxyType({}))
    homes: Mapping[str, _Home] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        return bool(self.by_call)

    def beside(self, former: Hooks) -> Hooks:
        """These, and those of before for questions that are still on their way."""
        return Hooks({**former.by_call, **self.by_call}, self.homes)


NO_HOOKS: Final = Hooks()


class _CantLoad(Exception):
    """In words that follow the name of the hook."""


def load_hooks(plans: Iterable[EndpointPlan], former: Hooks = NO_HOOKS) -> Hooks:
    """The functions that the plans name.

    Those of ``former`` stay the same objects as long as their source does. Raises ConfigError
    with a problem for each hook that can't be loaded.
    """
    hooks: dict[str, Hook] = {}
    homes: dict[str, _Home] = {}
    failures: dict[str, str] = {}
    problems = []
    for plan in plans:
        if plan.hook is None:
            continue
        call = plan.hook.call
        if call not in hooks and call not in failures:
            try:
                hooks[call] = _hook(call, homes, former)
            except _CantLoad as error:
                failures[call] = str(error)
        if call in failures:
            problems.append(
                Problem(f"endpoint {plan.id}: {failures[call]}", key="hook", value=call)
            )
    if problems:
        _put_back(homes, former)
        raise ConfigError(problems)
    return Hooks(hooks, homes)


def _hook(call: str, homes: dict[str, _Home], former: Hooks) -> Hook:
    where, _, name = call.rpartition(":")
    if where not in homes:
        homes[where] = _home(where, former.homes.get(where))
    home = homes[where]
    known = former.by_call.get(call)
    before = former.homes.get(where)
    if known is not None and before is not None and before.module is home.module:
        return known
    function: Any = home.module
    for part in name.split("."):
        function = getattr(function, part, None)
    if function is None:
        raise _CantLoad(f"there is no {name} in {where}")
    if not callable(function):
        raise _CantLoad(f"{name} is not a function")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise _CantLoad(f"{name} can't be called with an Arrival alone: {error}") from error
    except ValueError:
        # Written in C, without a signature: the first call will tell.
        pass
    waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # it is a coroutine function that counts
    )
    return Hook(call, function, waits)


def _home(where: str, former: _Home | None) -> _Home:
    if where.endswith(".py"):
        digest, source = _read(where)
        if former is not None and former.digest == digest:
            return former
        return _Home(_run(_name_for(where), where, source), where, digest)
    return _module(where, former)


def _module(name: str, former: _Home | None) -> _Home:
    """First as ``import`` gives it, so that a program shares its modules with its hooks."""
    if former is None:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise _CantLoad(_why(error, None)) from error
        path = _source_of(module)
        return _Home(module, path, None if path is None else _read(path)[0])
    if former.path is None:
        return former
    digest, source = _read(former.path)
    if digest == former.digest:
        return former
    return _Home(_run(name, former.path, source, like=former.module), former.path, digest)


def _source_of(module: ModuleType) -> str | None:
    """The file that can be run again in place of the module: not that of the program itself."""
    path = getattr(module, "__file__", None)
    if module.__name__ == "__main__" or path is None or not path.endswith(".py"):
        return None
    return str(path)


def _read(path: str) -> tuple[bytes, bytes]:
    try:
        with open(path, "rb") as file:
            source = file.read(_LARGEST + 1)
    except OSError as error:
        raise _CantLoad(f"{path} can't be read: {error.strerror}") from error
    if len(source) > _LARGEST:
        raise _CantLoad(f"{path} is larger than {_LARGEST // 2**20} MiB")
    return hashlib.sha256(source).digest(), source


def _run(name: str, path: str, source: bytes, like: ModuleType | None = None) -> ModuleType:
    """Run a source as a new module. Compiled here: the cache of compiled files goes by whole
    seconds, and a file may change twice in one."""
    module = ModuleType(name)
    module.__file__ = path
    if like is not None:
        module.__spec__, module.__loader__ = like.__spec__, like.__loader__
        module.__package__ = like.__package__
        if hasattr(like, "__path__"):
            module.__path__ = like.__path__
    linecache.checkcache(path)
    before = sys.modules.get(name)
    # What is defined in it may look for its module while it is run.
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102  # what a hook is
    except BaseException as error:
        _restore(name, before)
        if isinstance(error, (Exception, SystemExit)):
            raise _CantLoad(_why(error, path)) from error
        raise
    return module


def _restore(name: str, module: ModuleType | None) -> None:
    if module is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


def _put_back(homes: Mapping[str, _Home], former: Hooks) -> None:
    """What was run beside something that failed is not there after all."""
    for where, home in homes.items():
        before = former.homes.get(where)
        if before is not None:
            sys.modules[home.module.__name__] = before.module


def _name_for(path: str) -> str:
    """Of a module that no import finds."""
    return f"qanat_hook_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}_{Path(path).stem}"


def _why(error: BaseException, path: str | None) -> str:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return f"can't be loaded: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f"can't be loaded: {text}" + (f" (line {lines[-1]})" if lines else "")
