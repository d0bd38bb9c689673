"""A digest that names weights by what they are, not by where they lie."""

from pathlib import Path

import numpy as np
import pytest

from nad.engines.weights_digest import sampled_digest, weight_files


def written(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("size", [0, 1, 5000, 3_000_000])
def test_names_and_places_do_not_count_sizes_and_contents_do(tmp_path: Path, size: int) -> None:
    one, same = written(tmp_path / "a", "x", noise(size)), written(tmp_path / "b", "y", noise(size))
    assert sampled_digest([one]) == sampled_digest([same])
    longer = written(tmp_path, "longer", noise(size) + b"\0")
    other = written(tmp_path, "other", noise(size + 1, seed=1))
    assert len({sampled_digest([f]) for f in (one, longer, other)}) == 3
    assert sampled_digest([one, other]) != sampled_digest([one])


def test_both_ends_count_and_every_training_step_shows(tmp_path: Path) -> None:
    data = bytearray(noise(8_000_000))
    before = sampled_digest([written(tmp_path, "w", bytes(data))])
    for place in (0, 7_999_999):
        changed = bytearray(data)
        changed[place] ^= 1
        assert sampled_digest([written(tmp_path, "w", bytes(changed))]) != before
    trained = np.frombuffer(bytes(data), np.uint8) + (np.arange(len(data)) % 1000 == 0)
    assert sampled_digest([written(tmp_path, "w", trained.astype(np.uint8).tobytes())]) != before


def test_the_files_transformers_reads(tmp_path: Path) -> None:
    names = ["model-2.safetensors", "model-1.safetensors", "consolidated.safetensors", "pytorch_model.bin"]
    for name in [*names, "adapter_model.safetensors", "config.json", "training_args.bin"]:
        written(tmp_path, name, b"x")
    assert [f.name for f in weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    for name in names[:2]:
        (tmp_path / name).unlink()
    assert [f.name for f in weight_files(tmp_path)] == ["pytorch_model.bin"]
    (tmp_path / "pytorch_model.bin").unlink()
    assert [f.name for f in weight_files(tmp_path)] == ["consolidated.safetensors"]
