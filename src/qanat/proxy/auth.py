"""Who may use a proxy: names and passwords, in the clear for programs, hashed for files.

An authenticator is asked with a name and a password and says which user that is, or None; it may
be a plain function or a coroutine. Comparing takes the same time whether a name exists or not.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from typing import Final, Protocol

from qanat.stack.facts import User
from qanat.stack.threads import Threads

__all__ = [
    "Authenticator",
    "HashedUsers",
    "UserPass",
    "hash_password",
    "is_hash",
    "verify_password",
]


class Authenticator(Protocol):
    """From a name and a password to a user; None for a no. LimitReached for "ask me later"."""

    def __call__(self, name: str, password: str, /) -> User | Awaitable[User | None] | None: ...


class UserPass:
    """Names and passwords as they are."""

    def __init__(self, users: Mapping[str, str]) -> None:
        # Digests have one length, so that comparing tells nothing about a password's.
        self._key = secrets.token_bytes(32)
        self._users = {name: self._digest(password) for name, password in users.items()}
        self._nobody = self._digest(secrets.token_hex(16))

    def _digest(self, password: str) -> bytes:
        raw = password.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(raw, key=self._key, digest_size=32).digest()

    def __call__(self, name: str, password: str, /) -> User | None:
        expected = self._users.get(name)
        same = hmac.compare_digest(self._digest(password), expected or self._nobody)
        return User(name) if same and expected is not None else None

    def __repr__(self) -> str:
        return f"UserPass({len(self._users)} users)"


_COST: Final = 14
"""2**14 rounds with blocks of 8: 16 MiB, about 50 ms (what OWASP names beside its first choice)."""
_BLOCK: Final = 8
_LANES: Final = 1
_MOST_COST: Final = 17
_HASH: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{16,64})\$([A-Za-z0-9+/]{43})\Z"
)


def hash_password(password: str) -> str:
    """``$scrypt$ln=14,r=8,p=1$salt$hash``, without blanks or colons. Blocks for some 50 ms."""
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _COST, _BLOCK, _LANES)
    return f"$scrypt$ln={_COST},r={_BLOCK},p={_LANES}${_text(salt)}${_text(digest)}"


def is_hash(text: str) -> bool:
    """Whether it is one that :func:`verify_password` understands, and not too dear."""
    return _parts(text) is not None


def verify_password(password: str, hashed: str) -> bool:
    """Blocks as long as hashing does. False, too, for what is no hash."""
    parts = _parts(hashed)
    if parts is None:
        return False
    cost, block, lanes, salt, digest = parts
    return hmac.compare_digest(_scrypt(password, salt, cost, block, lanes), digest)


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    raw = password.encode("utf-8", "surrogateescape")
    memory = 128 * block * ((1 << cost) + lanes + 2) + (1 << 20)
    return hashlib.scrypt(raw, salt=salt, n=1 << cost, r=block, p=lanes, maxmem=memory, dklen=32)


def _parts(text: str) -> tuple[int, int, int, bytes, bytes] | None:
    match = _HASH.match(text)
    if match is None:
        return None
    cost, block, lanes = int(match[1]), int(match[2]), int(match[3])
    # 256 MiB and four times our time: nobody's file makes a login dearer.
    if not (1 <= cost <= _MOST_COST and 1 <= block <= 16 and 1 <= lanes <= 4):
        return None
    try:
        return cost, block, lanes, _raw(match[4]), _raw(match[5])
    except ValueError:
        return None


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii").rstrip("=")


def _raw(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)


_NOBODY: Final = f"$scrypt$ln={_COST},r={_BLOCK},p={_LANES}${_text(bytes(16))}${_text(bytes(32))}"
"""What unknown names are compared with."""


class HashedUsers:
    """Names and hashed passwords, as in the file of users.

    Hashing happens in few threads and a bounded number waits for it: beyond that, LimitReached.
    Who proved a password lately does so again without hashing, until ``replace`` changes it.
    """

    def __init__(
        self,
        entries: Mapping[str, str],
        *,
        threads: int = 2,
        waiting: int = 64,
        remembered: int = 1024,
        seconds: float = 300.0,
    ) -> None:
        self._entries = dict(entries)
        self._threads = Threads("passwords", threads, waiting)
        self._remembered = remembered
        self._seconds = seconds
        self._key = secrets.token_bytes(32)
        self._proven: OrderedDict[bytes, float] = OrderedDict()

    def replace(self, entries: Mapping[str, str]) -> None:
        """Other users from now on. Connections that are made stay."""
        self._entries = dict(entries)

    def __call__(self, name: str, password: str, /) -> User | Awaitable[User | None] | None:
        hashed = self._entries.get(name)
        if hashed is not None:
            proof = self._proof(name, password, hashed)
            until = self._proven.get(proof)
            if until is not None:
                if until > time.monotonic():
                    return User(name)
                del self._proven[proof]
        return self._verify(name, password, hashed)

    async def _verify(self, name: str, password: str, hashed: str | None) -> User | None:
        against = hashed or _NOBODY
        same = await self._threads.run(lambda: verify_password(password, against))
        # A reload may have changed or removed the user in the meantime.
        if not same or hashed is None or self._entries.get(name) != hashed:
            return None
        self._proven[self._proof(name, password, hashed)] = time.monotonic() + self._seconds
        while len(self._proven) > self._remembered:
            self._proven.popitem(last=False)
        return User(name)

    def _proof(self, name: str, password: str, hashed: str) -> bytes:
        """The hash is part of it, so a changed password is proven anew."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (name, hashed, password):
            raw = part.encode("utf-8", "surrogateescape")
            digest.update(len(raw).to_bytes(4, "big"))
            digest.update(raw)
        return digest.digest()

    def __repr__(self) -> str:
        return f"HashedUsers({len(self._entries)} users)"
