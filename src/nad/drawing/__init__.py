"""What the report's explorer and the server's page draw with: one script, one sheet of colours. Below both of them."""

from importlib.resources import files

ASSETS = ("draw.js", "theme.css")


def asset(name: str) -> str:
    """The text of one of `ASSETS`."""
    return (files("nad.drawing") / "assets" / name).read_text(encoding="utf-8")
