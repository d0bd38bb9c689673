"""The settings of GGUF headers, whole and broken ones."""

import struct
import time
from pathlib import Path

import pytest
from tiny import END, LAYERS
from tiny_gguf import tiny_gguf

from nad.engines.gguf_header import end_of_turn_tokens, gguf_settings


def test_numbers_and_texts_are_read_and_lists_passed_by(tmp_path: Path) -> None:
    settings = gguf_settings(tiny_gguf(tmp_path / "m.gguf", eot=258))
    assert settings["general.architecture"] == "llama"
    assert settings["llama.block_count"] == LAYERS
    assert settings["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert settings["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.tokens" not in settings
    assert end_of_turn_tokens(settings) == [END, 258]


def head(entries: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, entries) + rest


def entry(kind: int, value: bytes, name: bytes = b"n") -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


MANY = 2**60
BROKEN = {
    "empty": b"",
    "no GGUF": b"nothing of the kind",
    "cut in the counts": b"GGUF\x03",
    "more settings than there are": head(3, entry(4, b"\x01\0\0\0")),
    "too many settings": head(MANY, b""),
    "an endless name": head(1, struct.pack("<Q", MANY)),
    "an unknown type": head(1, entry(99, b"")),
    "an endless text": head(1, entry(8, struct.pack("<Q", MANY))),
    "an endless list": head(1, entry(9, struct.pack("<IQ", 4, MANY))),
    "lists in a list": head(1, entry(9, struct.pack("<IQ", 9, 5))),
    "a list of texts cut short": head(1, entry(9, struct.pack("<IQ", 8, 9) + struct.pack("<Q", 1) + b"x")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(BROKEN[name])
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=r"begin with GGUF|cut short|header"):
        gguf_settings(tmp_path / "m.gguf")
    assert time.perf_counter() - begin < 2
