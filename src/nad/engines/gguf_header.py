"""The settings in a GGUF file's header, without its vocabulary: reading that too takes seconds."""

import struct
from pathlib import Path
from typing import BinaryIO

_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST = 2_000_000
"""What has more entries, or longer texts, is not a header."""
_MOST_BYTES = 1 << 28


def gguf_settings(file: Path) -> dict[str, object]:
    """Names and values of the header's numbers and texts; lists are left out. ValueError if it is not a GGUF file.

    The layout is that of the GGUF specification: magic, version, counts, then (name, type, value) one after the other.
    """
    with file.open("rb") as source:
        if source.read(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        _version, _tensors, entries = struct.unpack("<IQQ", _exactly(source, 20))
        if entries > _MOST:
            raise ValueError(f"its header counts {entries} settings")
        found: dict[str, object] = {}
        for _ in range(entries):
            if source.tell() > _MOST_BYTES:
                raise ValueError("its header does not end")
            name = _text(source)
            value = _value(source, int(_number(source, "<I")))
            if value is not None:
                found[name] = value
        return found


def end_of_turn_tokens(settings: dict[str, object]) -> list[int]:
    """The tokens that end a text, a turn or a message, as far as the file names them."""
    names = (f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot", "eom"))
    return [token for name in names if isinstance(token := settings.get(name), int)]


def _value(source: BinaryIO, kind: int) -> object:
    if kind == _STRING:
        return _text(source)
    if kind != _ARRAY:
        return _number(source, _format(kind))
    inner, count = struct.unpack("<IQ", _exactly(source, 12))
    if count > _MOST:
        raise ValueError(f"its header has a list of {count}")
    if inner == _STRING:
        for _ in range(count):
            source.seek(_length(source), 1)
    else:
        source.seek(count * struct.calcsize(_format(inner)), 1)
    return None


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise ValueError(f"its header has a value of the unknown type {kind}")
    return _FORMATS[kind]


def _number(source: BinaryIO, form: str) -> int | float:
    number: int | float = struct.unpack(form, _exactly(source, struct.calcsize(form)))[0]
    return number


def _length(source: BinaryIO) -> int:
    length = int(_number(source, "<Q"))
    if length > _MOST:
        raise ValueError(f"its header has a text of {length} bytes")
    return length


def _text(source: BinaryIO) -> str:
    return _exactly(source, _length(source)).decode(errors="replace")


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise ValueError("its header is cut short")
    return data
