"""Control groups, on a folder that stands for the kernel's, and on the kernel's own where one is to be had."""

from pathlib import Path

import pytest
from programs import needs_bwrap, printed

from nad.grading import cgroup
from nad.grading.cgroup import own_group
from nad.grading.sandbox import Limits


@pytest.fixture
def hierarchy(tmp_path, monkeypatch):
    """/user/scope, where this process is; controllers are given on to the children of /user."""
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    (root / "user" / "scope").mkdir(parents=True)
    (proc / "cgroup").write_text("1:name=systemd:/elsewhere\n0::/user/scope\n")
    (proc / "mountinfo").write_text(
        f"31 23 0:28 / /sys rw - tmpfs tmpfs rw\n32 31 0:29 / {root} rw - cgroup2 cgroup2 rw\n"
    )
    for folder, given in ((root, "memory pids cpu"), (root / "user", "memory pids"), (root / "user" / "scope", "")):
        (folder / "cgroup.subtree_control").write_text(given)
        (folder / "cgroup.procs").touch()
    place = cgroup._place
    monkeypatch.setattr(cgroup, "_place", lambda: place(proc))
    return root


def test_a_group_is_made_beside_ours_with_its_limits_and_is_gone_afterwards(hierarchy, monkeypatch):
    removed: list[Path] = []
    monkeypatch.setattr(cgroup, "_remove", removed.append)  # the kernel's files go with their folder, ours do not
    with own_group(1000, 7) as group:
        assert group is not None and group.folder.parent == hierarchy / "user"
        files = {path.name: path.read_text() for path in group.folder.iterdir()}
        assert files == {"memory.max": "1000", "memory.oom.group": "1", "pids.max": "7"}
        assert group.entrance == group.folder / "cgroup.procs" and removed == []
    assert removed == [group.folder]


@pytest.mark.parametrize("missing", ["memory", "pids"])
def test_no_group_where_a_controller_is_not_given_on(hierarchy, missing):
    for folder in (hierarchy, hierarchy / "user"):
        (folder / "cgroup.subtree_control").write_text("memory pids".replace(missing, ""))
    with own_group(1000, 7) as group:
        assert group is None


def test_no_group_where_there_is_no_cgroup_v2(tmp_path):
    (tmp_path / "cgroup").write_text("4:memory:/\n")
    (tmp_path / "mountinfo").write_text("35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    assert cgroup._place(tmp_path) is None and cgroup._delegated(None) is None


def test_a_group_seen_from_a_namespace_lies_under_its_mount(tmp_path):
    (tmp_path / "cgroup").write_text("0::/a/b/c\n")
    (tmp_path / "mountinfo").write_text("35 31 0:32 /a /cg rw - cgroup2 cgroup2 rw\n")
    assert cgroup._place(tmp_path) == (Path("/cg"), Path("/cg/b/c"))


@needs_bwrap
def test_memory_of_all_processes_together_is_limited():
    with own_group(1 << 30, 20) as group:
        if group is None:
            pytest.skip("needs cgroup v2, its memory and pids given on to a group of this user's")
    greedy = (
        "import os, time\nfor i in range(8):\n    if os.fork() == 0:\n        x = bytearray(200 << 20)\n"
        "        time.sleep(5)\n        os._exit(0)\ntime.sleep(3)\nprint('alive')"
    )
    with pytest.raises(AssertionError, match="the judge ended"):
        printed(greedy, Limits(memory=256 << 20))
