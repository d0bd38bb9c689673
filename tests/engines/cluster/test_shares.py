"""What each replica gets of machines whose sizes can be counted by hand."""

import pytest

from nad.engines.cluster.shares import Machine, Share, cores_of, fair_share, gpus_of
from nad.errors import UsageError


@pytest.mark.parametrize(
    ("cores", "replicas", "each"),
    [
        ([8], 1, 8),
        ([8], 2, 4),
        ([8], 3, 2),
        ([2], 2, 1),
        ([8, 8], 2, 8),
        ([8, 8], 3, 4),  # 5 would leave room for one on each machine
        ([16, 4], 3, 5),  # three on the large one
        ([16, 4], 5, 4),
    ],
)
def test_cores_are_shared_alike_and_never_across_machines(cores: list[int], replicas: int, each: int) -> None:
    assert fair_share([Machine(c) for c in cores], replicas, "auto", 1) == Share(each)


def test_gpus_are_whole_and_of_one_machine() -> None:
    two = [Machine(32, 4), Machine(32, 4)]
    assert fair_share(two, 8, "auto", 1) == Share(1, 1)
    assert fair_share(two, 2, "cuda", 3) == Share(1, 3)
    with pytest.raises(
        UsageError, match="not enough for 3 replicas: 3 GPUs of one machine each, and there is room for 2"
    ):
        fair_share(two, 3, "auto", 3)
    assert fair_share(two, 4, "cpu", 1) == Share(16), "asked for, CPUs are shared although there are GPUs"


@pytest.mark.parametrize(
    ("machines", "device", "message"),
    [
        ([Machine(2)], "auto", "not enough for 3 replicas: a core each, and there are 2; lower --replicas"),
        ([], "auto", "not enough for 3 replicas: a core each, and there are 0"),
        ([Machine(8)], "cuda", "not enough for 3 replicas: 1 GPU of one machine each, and there is room for 0"),
        ([Machine(8, 8)], "cuda:1", "pass --device auto, cpu or cuda, not 'cuda:1'"),
    ],
)
def test_what_does_not_fit_is_refused(machines: list[Machine], device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fair_share(machines, 3, device, 1)


def test_gpus_of_an_engine() -> None:
    assert gpus_of({}) == 1
    assert gpus_of({"tensor_parallel_size": "4", "pipeline_parallel_size": "2", "max_num_seqs": "8"}) == 8
    with pytest.raises(UsageError, match="sizes must be at least 1, got '0'"):
        gpus_of({"tensor_parallel_size": "0"})
    with pytest.raises(UsageError, match="spreads one engine over machines; drop it, or --replicas"):
        gpus_of({"distributed_executor_backend": "ray"})


def test_replicas_of_a_machine_have_cores_of_their_own() -> None:
    cores = [0, 1, 4, 5, 6]
    assert [cores_of(place, Share(2), cores) for place in range(3)] == [[0, 1], [4, 5], []]
    assert cores_of(0, Share(1, 2), cores) == [], "with GPUs all cores are everybody's"
