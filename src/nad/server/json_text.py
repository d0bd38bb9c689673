"""JSON on its way to a client."""

import json

from pydantic import BaseModel


def json_bytes(value: object) -> bytes:
    """Compact JSON in UTF-8. A model gives the fields that were set.

    A lone surrogate has no UTF-8 form: it is written as the JSON escape it came in as.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")
