"""API keys: read from a file, kept as digests, compared in constant time."""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nad.errors import UsageError

_SHORTEST = 16


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, repr=False)
class Keys:
    """The keys that open the server, as digests: none, and it is open."""

    digests: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[str]) -> "Keys":
        return cls(tuple(map(_digest, keys)))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def __repr__(self) -> str:
        return f"Keys({len(self.digests)})"

    def fit(self, authorization: str) -> bool:
        """Whether this header carries one of the keys. The time it takes does not depend on which, or how nearly."""
        if not self.digests:
            return True
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        equal = [hmac.compare_digest(given, digest) for digest in self.digests]
        return any(equal) and scheme.lower() == "bearer"


def read_keys(path: str) -> Keys:
    """The keys of a file, one a line; empty lines and those that begin with # are left out."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise UsageError(f"{path} holds no API key; write one a line, for example from: openssl rand -hex 32")
    for number, line in enumerate(lines, 1):
        if line in keys and (len(line) < _SHORTEST or not line.isascii() or not line.isprintable() or " " in line):
            raise UsageError(
                f"{path}, line {number}: a key must be at least {_SHORTEST} printable ASCII characters without spaces"
            )
    return Keys.of(keys)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach what listens at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_reach(host: str, keys: Keys, insecure: bool) -> None:
    """Raise UsageError for a server that others could reach without a key."""
    if not keys and not is_loopback(host) and not insecure:
        raise UsageError(
            f"{host} can be reached from other machines, and no key is asked for; give --api-key-file FILE, "
            "listen on 127.0.0.1, or allow it with --insecure"
        )
