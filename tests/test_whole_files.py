"""Outputs that are there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from nad.whole_files import write_whole


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


def test_a_full_disk_leaves_the_old_file_and_names_the_new_one(tmp_path: Path, full: None) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(target, b"new")
    assert caught.value.filename == str(target)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "old")]


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.csv"
    for text in ("one", "two"):
        write_whole(target, text.encode())
    assert target.read_text() == "two"
    assert len(list(target.parent.iterdir())) == 1


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_takes_no_other_ones_place(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "manifest.json"
    write_whole(target, b"first", new=True)
    with pytest.raises(FileExistsError):
        write_whole(target, b"second", new=True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("manifest.json", "first")]
