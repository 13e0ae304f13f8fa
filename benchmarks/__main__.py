"""Run the benchmarks: ``python -m benchmarks [NAME...]``; without a name, all of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    boundary,
    bulk,
    connect,
    fairness,
    footprint,
    generator,
    health_checks,
    hook,
    http_forward,
    idle_memory,
    machine,
    pingpong,
    proxied_bulk,
    proxy_protocol,
    python_relay,
    rates,
    report,
    server_name,
    socks5,
    socks_udp,
    start_up,
    tls_bulk,
    tls_forward,
    tls_handshake,
    udp_blast,
    udp_pingpong,
    ws_pair,
)
from benchmarks.failure import BenchmarkError
from benchmarks.peers import PEERS, Direct, Haproxy, Nginx, Peer, Qanat, Socat
from benchmarks.proxies import PROXIES
from benchmarks.question import Outcome, Question, Setting, ask

__all__ = ["QUESTIONS", "main"]

QUESTIONS: dict[str, Question] = {
    module.QUESTION.name: module.QUESTION
    for module in (
        bulk,
        pingpong,
        connect,
        idle_memory,
        udp_blast,
        udp_pingpong,
        fairness,
        tls_bulk,
        tls_handshake,
        proxy_protocol,
        server_name,
        hook,
        boundary,
        python_relay,
        proxied_bulk,
        socks5,
        socks_udp,
        http_forward,
        tls_forward,
        ws_pair,
        start_up,
        footprint,
        health_checks,
        rates,
    )
}
_USUAL = (*PEERS, *(proxy.name for proxy in PROXIES))
"""Peers that are compared when nobody says which."""
RESULTS = generator.ROOT / "benchmarks" / "results" / "latest.json"
PAGE = generator.ROOT / "docs" / "performance.md"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure qanat beside other relays, in turn, on this machine.",
        epilog="Questions: " + ", ".join(QUESTIONS),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="questions; all without any")
    parser.add_argument("--rounds", type=int, help="rounds over all peers (default 5)")
    parser.add_argument("--seconds", type=float, help="how long each sample takes (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, to see that it works"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="spent on each question to repeat what others' work disturbed (default %(default)s)",
    )
    parser.add_argument("--peers", default=",".join(_USUAL), help="default %(default)s")
    parser.add_argument(
        "--python", default=sys.executable, help="the one that qanat is measured in"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="write docs/performance.md and benchmarks/results/latest.json, which a complete run "
        "does anyway; questions that are not asked keep what was found before",
    )
    return parser


def _peers(names: str, python: str) -> list[Peer]:
    known: dict[str, Peer] = {
        peer.name: peer
        for peer in (
            Qanat(python=python),
            Nginx(),
            Haproxy(),
            Socat(),
            Direct(),
            *PROXIES,
            # As nobody has them by default, to know how far they can be brought in bulk.
            Nginx(name="nginx-64k", buffer="64k"),
            Nginx(name="nginx-256k", buffer="256k"),
            Haproxy(name="haproxy-1m", pipe_size=1 << 20),
        )
    }
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BenchmarkError(f"no such peer: {', '.join(unknown)} (there are {', '.join(known)})")
    return [known[name] for name in wanted]


def _questions(names: Sequence[str]) -> list[Question]:
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        raise BenchmarkError(
            f"no such question: {', '.join(unknown)} (there are {', '.join(QUESTIONS)})"
        )
    return [QUESTIONS[name] for name in names or QUESTIONS]


def _setting(arguments: argparse.Namespace) -> Setting:
    if arguments.quick:
        return Setting(
            rounds=arguments.rounds or 1, seconds=arguments.seconds or 0.5, warm_up=0.1, quick=True
        )
    return Setting(
        rounds=arguments.rounds or 5,
        seconds=arguments.seconds or 2.0,
        patience=arguments.patience,
    )


def _page(outcomes: Sequence[Outcome], facts: dict[str, str]) -> str:
    proxies = {proxy.name for proxy in PROXIES}
    names = [
        name
        for name in _USUAL
        if any(name in of for one in outcomes for of in one.samples.values())
    ]
    asked = [one for one in outcomes if proxies & set(one.question.peers)]
    relays = [one for one in outcomes if one not in asked]
    columns = [name for name in names if name not in proxies]
    of_proxies = {name for one in asked for name in one.question.peers}
    columns_of_proxies = [name for name in names if name in of_proxies]
    return "\n\n".join(
        [
            "\n".join(f"- {name}: {value}" for name, value in facts.items()),
            report.markdown(report.bars_table(outcomes)),
            "Medians of all rounds:",
            report.markdown(report.numbers_table(relays, columns)),
            "And of proxies:",
            report.markdown(report.numbers_table(asked, columns_of_proxies)),
        ]
    )


def _write_docs(outcomes: list[Outcome], facts: dict[str, str], setting: Setting) -> None:
    """What was asked now beside what was found before."""
    asked = {outcome.question.name: outcome for outcome in outcomes}
    if RESULTS.exists():
        before = json.loads(RESULTS.read_text())
        for outcome in report.earlier(before, QUESTIONS):
            asked.setdefault(outcome.question.name, outcome)
        facts = {**before["machine"], **facts}
    whole = [asked[name] for name in QUESTIONS if name in asked]
    facts |= {"date": report.dates(whole), "bystanders": report.bystanders(whole)}
    result = report.as_json(whole, facts, setting.rounds, setting.seconds)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(report.replace_between_markers(PAGE.read_text(), _page(whole, facts)))


def main(words: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    try:
        questions = _questions(arguments.names)
        peers = _peers(arguments.peers, arguments.python)
        setting = _setting(arguments)
        generator.binary()
        lacking = [lack for peer in peers if (lack := peer.missing()) is not None]
        for lack in lacking:
            print(lack, file=sys.stderr)
        peers = [peer for peer in peers if peer.missing() is None]
        names = [peer.name for peer in peers]
        facts = machine.describe(peers)
        outcomes = []
        for question in questions:
            chosen = [
                peer
                for peer in peers
                if {peer.name, peer.name.partition("-")[0]} & set(question.peers)
            ]
            outcome = ask(question, chosen, setting)
            outcome.date = facts["date"]
            outcomes.append(outcome)
            asked = [peer.name for peer in chosen]
            print(report.align(report.numbers_table([outcome], asked)), end="\n\n")
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if "qanat" in names:
        print(report.align(report.bars_table(outcomes)), end="\n\n")
    facts["bystanders"] = report.bystanders(outcomes)
    print(facts["bystanders"])
    result = report.as_json(outcomes, facts, setting.rounds, setting.seconds)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if arguments.json:
        arguments.json.write_text(text)
    complete = not (arguments.names or arguments.quick or lacking)
    if arguments.write_docs or (complete and arguments.peers == ",".join(_USUAL)):
        _write_docs(outcomes, facts, setting)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
