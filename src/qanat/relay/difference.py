"""What lies between two sets of plans. Pure: knows plans, and neither engine nor configuration.

A reload touches what differs and nothing else. Listening sockets are the precious part: a plan that
needs the same sockets as a running one takes them over, whatever else has changed, so that no
connection attempt meets a closed port.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

from qanat.plan import EndpointPlan

__all__ = ["Difference", "FieldChange", "Report", "changes", "difference", "sockets"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Each old plan and each new plan is in exactly one of the five."""

    added: tuple[EndpointPlan, ...]
    removed: tuple[EndpointPlan, ...]
    changed: tuple[tuple[EndpointPlan, EndpointPlan], ...]
    """(old, new) with the same listening sockets, which are kept."""
    rebound: tuple[tuple[EndpointPlan, EndpointPlan], ...]
    """(old, new) of one endpoint whose listening sockets have to be made anew."""
    untouched: tuple[EndpointPlan, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.rebound)

    def report(self) -> Report:
        return Report(
            added=tuple(plan.id for plan in self.added),
            removed=tuple(plan.id for plan in self.removed),
            changed=tuple(new.id for _, new in self.changed),
            rebound=tuple(new.id for _, new in self.rebound),
            untouched=tuple(plan.id for plan in self.untouched),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What a change of the endpoints did: the ids of the endpoints, each in one place."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """New flows go by the new plan; the listening sockets stayed open."""
    rebound: tuple[str, ...] = ()
    """Changed, with new listening sockets."""
    untouched: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.rebound)

    def __str__(self) -> str:
        """``1 added, 0 removed, 2 changed, 997 untouched``, the rebound counted as changed."""
        changed = len(self.changed) + len(self.rebound)
        return (
            f"{len(self.added)} added, {len(self.removed)} removed, "
            f"{changed} changed, {len(self.untouched)} untouched"
        )


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a plan that differs, by its path: ``tcp.connect_timeout``."""

    field: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.field}: {self.old!r} -> {self.new!r}"


def difference(old: Sequence[EndpointPlan], new: Sequence[EndpointPlan]) -> Difference:
    """Pair the plans of ``old`` and ``new``, each time the closest relation first.

    1. equal: untouched
    2. equal but for the id: changed (an endpoint was named)
    3. same id, same listening sockets: changed
    4. same listening sockets, except where the kernel chose the port (a port chosen for one
       endpoint must not fall to another): changed. So endpoints that swap their addresses leave the
       sockets where they are.
    5. same id: rebound
    6. without a partner: added or removed
    """
    pairing = _Pairing(old, new)
    pairing.match(lambda plan: plan)
    pairing.match(lambda plan: replace(plan, id=""))
    pairing.match(lambda plan: (plan.id, sockets(plan)))
    pairing.match(lambda plan: None if _kernel_chooses(plan) else sockets(plan))
    pairing.match(lambda plan: plan.id)

    pairs = list(pairing.pairs())
    return Difference(
        added=tuple(plan for before, plan in pairs if before is None),
        removed=tuple(pairing.left_over()),
        changed=tuple(
            (before, plan)
            for before, plan in pairs
            if before is not None and before != plan and sockets(before) == sockets(plan)
        ),
        rebound=tuple(
            (before, plan)
            for before, plan in pairs
            if before is not None and sockets(before) != sockets(plan)
        ),
        untouched=tuple(plan for before, plan in pairs if before == plan),
    )


def sockets(plan: EndpointPlan) -> Hashable:
    """Whatever the listening sockets of a plan are made from; if it is equal they can stay."""
    return (
        plan.listen,
        plan.listen_interface,
        # The option exists on IPv6 sockets alone.
        plan.ipv6_only and plan.listen.startswith("["),
        None if plan.tcp is None else plan.tcp.accept_mptcp,
        plan.udp is not None,
    )


def changes(old: EndpointPlan, new: EndpointPlan) -> list[FieldChange]:
    """The fields that differ, in the order of the plan's definition."""
    return list(_changes("", old, new))


class _Pairing:
    """Plans by position, and which position of the new set got which of the old."""

    def __init__(self, old: Sequence[EndpointPlan], new: Sequence[EndpointPlan]) -> None:
        self._old = dict(enumerate(old))
        self._new = dict(enumerate(new))
        self._free = dict(self._new)
        self._partner: dict[int, EndpointPlan] = {}

    def match(self, key: Callable[[EndpointPlan], Hashable]) -> None:
        """Pair those without a partner whose keys are equal, in order; None is no key."""
        if not self._free or not self._old:
            return
        candidates: defaultdict[Hashable, list[int]] = defaultdict(list)
        for position, plan in reversed(self._old.items()):
            candidates[key(plan)].append(position)
        for position, plan in list(self._free.items()):
            wanted = key(plan)
            if wanted is not None and candidates.get(wanted):
                self._partner[position] = self._old.pop(candidates[wanted].pop())
                del self._free[position]

    def pairs(self) -> Iterator[tuple[EndpointPlan | None, EndpointPlan]]:
        for position, plan in self._new.items():
            yield self._partner.get(position), plan

    def left_over(self) -> Iterator[EndpointPlan]:
        yield from self._old.values()


def _kernel_chooses(plan: EndpointPlan) -> bool:
    return plan.listen.endswith(":0")


def _changes(path: str, old: object, new: object) -> Iterator[FieldChange]:
    if old == new:
        return
    if is_dataclass(old) and is_dataclass(new):
        for field in fields(old):
            inner = f"{path}.{field.name}" if path else field.name
            yield from _changes(inner, getattr(old, field.name), getattr(new, field.name))
    else:
        yield FieldChange(path, old, new)
