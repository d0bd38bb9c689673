"""A digest of a model's weights that takes a moment even for hundreds of gigabytes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

_BLOCK, _BLOCKS, _ENDS = 4096, 256, 1 << 16
_KINDS = ("model*.safetensors", "pytorch_model*.bin", "*.safetensors", "*.bin")
"""What transformers reads, in its order; the first kind that is there counts."""


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold its model's weights, by name."""
    kinds = ([f for f in sorted(folder.glob(kind)) if not f.name.startswith("adapter_")] for kind in _KINDS)
    return next((files for files in kinds if files), [])


def sampled_digest(files: Sequence[Path]) -> str:
    """A digest of each file's size, its first and last 64 KiB and 256 blocks of 4 KiB spread evenly between.

    Names and places do not count. Files that differ in other bytes alone have the same digest. It tells models apart,
    also a trained one from what it was trained from (training moves every weight), but not files made to deceive.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with file.open("rb") as source:
            digest.update(source.read(_ENDS))
            for i in range(_BLOCKS):
                source.seek(size * i // _BLOCKS)
                digest.update(source.read(_BLOCK))
            source.seek(max(0, size - _ENDS))
            digest.update(source.read(_ENDS))
    return f"sampled-sha256:{digest.hexdigest()}"
