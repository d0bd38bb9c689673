"""Packages that a benchmark's programs may import beside the standard library (docs/decisions/0036-packages.md).

A task names them; each is bound read-only into the sandbox, alone, without what else lies beside it.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from nad.errors import NadError

_INSIDE = Path("/packages")
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Threads count as processes, and a library that cannot start its threads gives up."""


def package_binds(packages: Sequence[str]) -> list[str]:
    """bubblewrap's options that show these packages' folders, and nothing beside them."""
    folders = [folder for name in packages for folder in _folders(name)]
    shown = [part for folder in folders for part in ("--ro-bind", str(folder), str(_INSIDE / folder.name))]
    return ["--perms", "0755", "--dir", str(_INSIDE), *shown] if shown else []


def package_environment(packages: Sequence[str], unsafe: bool) -> Mapping[str, str]:
    """The variables by which Python finds them. Without a sandbox it also finds what lies beside them."""
    if not packages:
        return {}
    where = dict.fromkeys(str(_folders(name)[0].parent) for name in packages) if unsafe else [str(_INSIDE)]
    return {"PYTHONPATH": ":".join(where), **_ONE_THREAD}


def _folders(name: str) -> list[Path]:
    """A package's folder, and that of the libraries which its wheel brings along. Raises NadError for none."""
    spec = find_spec(name)
    found = list(spec.submodule_search_locations or ()) if spec else []
    if not found:
        raise NadError(f"programs of this task may import {name}, and it is not here: pip install {name}")
    folder = Path(found[0])
    libraries = folder.with_name(f"{name}.libs")
    return [folder, *([libraries] if libraries.is_dir() else [])]
