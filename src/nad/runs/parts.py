"""The names of a run's parts: whose problem's, how many samples, and the checksum of the bytes.

    000012-3fa9c1d2e4b5a697-64-<checksum>.parquet

The place (from 0) is there for readers that sort names. A part belongs to the problem whose key it has, wherever that
stands in the run's list by now.
"""

import hashlib
import re
from dataclasses import dataclass

_NAME = re.compile(r"(\d{6,12})-([0-9a-f]{16})-(\d{1,9})-([0-9a-f]{32})\.parquet")


@dataclass(frozen=True)
class PartName:
    """What a part's name says of it."""

    place: int
    key: str
    samples: int
    checksum: str

    def __str__(self) -> str:
        return f"{self.place:06d}-{self.key}-{self.samples}-{self.checksum}.parquet"


def parsed(name: str) -> PartName | None:
    """None: the file is not a part of this schema."""
    found = _NAME.fullmatch(name)
    return PartName(int(found[1]), found[2], int(found[3]), found[4]) if found else None


def problem_key(problem: str, digest: str) -> str:
    """What parts call a problem: a hash of its id and of what it asks."""
    return hashlib.sha256(f"{problem}\n{digest}".encode("utf-8", "replace")).hexdigest()[:16]


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
