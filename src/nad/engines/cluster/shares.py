"""What each replica may use of the machines there are: whole GPUs, or on CPUs a fair number of cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nad.errors import UsageError

_BACKEND = "distributed_executor_backend"


@dataclass(frozen=True)
class Machine:
    """What a node of the cluster has."""

    cores: int
    gpus: int = 0


@dataclass(frozen=True)
class Share:
    """What one replica gets, of one machine. With `gpus` the cores are only what Ray counts."""

    cores: int
    gpus: int = 0

    def __str__(self) -> str:
        return _counted(self.gpus, "GPU") if self.gpus else _counted(self.cores, "core")


def fair_share(machines: Sequence[Machine], replicas: int, device: str, gpus_each: int) -> Share:
    """The share of each of `replicas`: `gpus_each` GPUs where there are any, else as many cores as all can have alike.

    Raises UsageError where they do not fit, or for a device that Ray chooses.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"replicas get their GPUs from Ray; pass --device auto, cpu or cuda, not {device!r}")
    if device == "cuda" or (device == "auto" and any(m.gpus for m in machines)):
        fit = sum(m.gpus // gpus_each for m in machines)
        if fit < replicas:
            each = f"{_counted(gpus_each, 'GPU')} of one machine each"
            wanted = _counted(replicas, "replica")
            raise UsageError(f"not enough for {wanted}: {each}, and there is room for {fit}; lower --replicas")
        return Share(1, gpus_each)
    most = max((m.cores for m in machines), default=0)
    for cores in range(most, 0, -1):
        if sum(m.cores // cores for m in machines) >= replicas:
            return Share(cores)
    have = sum(m.cores for m in machines)
    wanted = _counted(replicas, "replica")
    raise UsageError(f"not enough for {wanted}: a core each, and there are {have}; lower --replicas")


def gpus_of(arguments: Mapping[str, str]) -> int:
    """How many GPUs one engine with these arguments splits its model among. Raises UsageError for Ray inside Ray."""
    if arguments.get(_BACKEND) == "ray":
        raise UsageError(f"--engine-arg {_BACKEND}=ray spreads one engine over machines; drop it, or --replicas")
    sizes = (arguments.get(f"{name}_parallel_size", "1") for name in ("tensor", "pipeline"))
    product = 1
    for size in sizes:
        if not size.isdigit() or int(size) < 1:
            raise UsageError(f"tensor and pipeline parallel sizes must be at least 1, got {size!r}")
        product *= int(size)
    return product


def cores_of(place: int, share: Share, cores: Sequence[int]) -> list[int]:
    """Which of a machine's cores the replica at a place (0, 1, ...) takes. Empty: it need not choose."""
    mine = list(cores[place * share.cores : (place + 1) * share.cores])
    return mine if len(mine) == share.cores and not share.gpus else []


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
