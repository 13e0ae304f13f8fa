"""Whether files of certificates and keys can be what the configuration says they are.

Only what the engine would stumble over later is looked for, so that a start, a reload and a check
can name the file and the key. Opens files and keeps nothing of them but the answer.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import Final

__all__ = ["CertificateFiles"]

LARGEST: Final = 4 * 2**20
"""Bytes of one file. The largest collections of authorities have a tenth of it."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_DER: Final = b"\x30"
_CERTIFICATES: Final = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})


class CertificateFiles:
    """Answers for one pass over a configuration, in which many endpoints may name one file.

    Each method says what is wrong in words that follow the path, or None.
    """

    def __init__(self) -> None:
        self._read: dict[str, bytes | str] = {}
        self._answers: dict[tuple[str, ...], str | None] = {}

    def certificate(self, path: str) -> str | None:
        return self._look(path, _certificate)

    def authorities(self, path: str) -> str | None:
        return self._look(path, _authorities)

    def key(self, path: str) -> str | None:
        return self._look(path, _key)

    def response(self, path: str) -> str | None:
        return self._look(path, _response)

    def exists(self, path: str) -> str | None:
        return self._look(path, lambda _: None)

    def belong_together(self, cert: str, key: str) -> str | None:
        """Of two files that are right each for itself."""
        asked = (cert, key)
        if asked not in self._answers:
            self._answers[asked] = self._mismatch(cert, key)
        return self._answers[asked]

    def _look(self, path: str, judge: Callable[[bytes], str | None]) -> str | None:
        content = self._content(path)
        return judge(content) if isinstance(content, bytes) else content

    def _content(self, path: str) -> bytes | str:
        if path not in self._read:
            self._read[path] = _read(path)
        return self._read[path]

    def _mismatch(self, cert: str, key: str) -> str | None:
        if any(_PEM.search(content) is None for content in map(_as_bytes, self._both(cert, key))):
            # The standard library compares PEM alone. The engine compares again.
            return None
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(cert, key, password=lambda: b"")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                return f"does not belong to the certificate in {cert}"
        except OSError:
            # Changed while we looked; the engine reads for itself.
            return None
        return None

    def _both(self, cert: str, key: str) -> tuple[bytes | str, bytes | str]:
        return self._content(cert), self._content(key)


def _as_bytes(content: bytes | str) -> bytes:
    return content if isinstance(content, bytes) else b""


def _read(path: str) -> bytes | str:
    try:
        # A pipe would never answer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "is not a file"
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"can't be read: {why}"
    return content if len(content) <= LARGEST else f"is larger than {LARGEST // 2**20} MiB"


def _blocks(content: bytes) -> set[bytes]:
    return set(_PEM.findall(content))


def _certificate(content: bytes) -> str | None:
    blocks = _blocks(content)
    if blocks & _CERTIFICATES or (not blocks and content.startswith(_DER)):
        return None
    return "holds no certificate"


def _authorities(content: bytes) -> str | None:
    return None if _blocks(content) & _CERTIFICATES else "holds no certificate in PEM"


def _key(content: bytes) -> str | None:
    kinds = {block for block in _blocks(content) if block.endswith(b"PRIVATE KEY")}
    if b"ENCRYPTED PRIVATE KEY" in kinds or b"Proc-Type: 4,ENCRYPTED" in content:
        return "holds a key with a passphrase, which nobody could type"
    if kinds or (not _blocks(content) and content.startswith(_DER)):
        return None
    return "holds no private key"


def _response(content: bytes) -> str | None:
    return None if content.startswith(_DER) else "is not an OCSP response in DER"
