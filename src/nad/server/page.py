"""The page at /: files of this package, and nothing from anywhere else."""

from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "static"


def install(app: FastAPI) -> tuple[str, ...]:
    """Mount the page, if this package has one, and return the addresses that need no key: they tell nothing."""
    if not (FOLDER / "index.html").exists():
        return ()
    app.mount("/", StaticFiles(directory=FOLDER, html=True))
    return ("/", *(f"/{path.relative_to(FOLDER)}" for path in FOLDER.rglob("*") if path.is_file()))
