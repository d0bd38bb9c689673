"""vLLM engines on tiny models, and the check that what they captured is what a forward pass gives."""

import configparser
import json
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, built, tiny_config, tiny_tokenizer

from nad.engines.vllm.platform import check_version
from nad.neurons.activation import ActivationRule, ActivationSet
from nad.types import Completion

SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "max_position_embeddings": 512}
"""Of the tiny models: their 4 heads and 96 neurons can be split among workers."""
RULE = ActivationRule(k=30, per_layer=16)
OWN = replace(RULE, position="own")


def tiny_folder(folder: Path, family: str = "qwen3", **changes: Any) -> str:
    """A tiny random model with a tokenizer."""
    built(tiny_config(FAMILIES[family], **{**SIZES, **changes})).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def in_four_bits(folder: str, packed: Path, dense: Path) -> None:
    """The model in `folder` with layers of 4-bit weights, in groups of 32; and the same numbers as a plain model.

    The scales are powers of two, so that bfloat16 holds every weight exactly.
    """
    plain = load_file(f"{folder}/model.safetensors")
    stored = dict(plain)
    for name in [n for n in plain if n.endswith("_proj.weight")]:
        groups = plain[name].float().unflatten(1, (-1, 32))
        scale = 2.0 ** (groups.abs().amax(dim=2, keepdim=True) / 7).log2().ceil()
        levels = (groups / scale).round()
        plain[name] = (levels * scale).flatten(1)
        nibbles = (levels.flatten(1).long() + 8).unflatten(1, (-1, 8)) << (4 * torch.arange(8))
        word = nibbles.sum(dim=2)
        stored[f"{name}_packed"] = torch.where(word < 2**31, word, word - 2**32).int()
        stored[f"{name}_scale"] = scale[:, :, 0].bfloat16()
        stored[f"{name}_shape"] = torch.tensor(stored.pop(name).shape)
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    scheme = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    for target, tensors, changes in ((dense, plain, {}), (packed, stored, {"quantization_config": scheme})):
        shutil.copytree(folder, target)
        save_file(tensors, target / "model.safetensors", {"format": "pt"})
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**config, **changes}))


def started(folder: str | None, dtype: str = "float32", **arguments: Any) -> Any:
    """A vLLM engine; it runs eagerly unless told."""
    pytest.importorskip("vllm")
    from nad.engines import load_engine

    given = {"enforce_eager": "true", "block_size": "32", **{k: str(v) for k, v in arguments.items()}}
    return load_engine(folder, "vllm", dtype=dtype, arguments=given)


def jaccard(one: ActivationSet, other: ActivationSet) -> float:
    a, b = set(one.neuron.tolist()), set(other.neuron.tolist())
    return len(a & b) / len(a | b) if a | b else 1.0


def assert_teacher_forced(
    reference: Any,
    prompt: tuple[int, ...],
    completions: Iterable[Completion],
    rule: ActivationRule = RULE,
    least: float = 0.9999,
) -> None:
    """Equal up to ties, in the mean; where the neurons are the same their first tokens are too."""
    found = []
    for completion in completions:
        expected = reference.score(prompt, completion.tokens, rule).activations
        found.append(jaccard(completion.activations, expected))
        if found[-1] == 1.0 and least > 0.99:
            assert completion.activations.first_token.tolist() == expected.first_token.tolist()
    assert np.mean(found) >= least, found


def packages_of_this_tree(folder: Path) -> str:
    """A folder for PYTHONPATH with what vLLM asks of installed packages.

    They are this tree's plugin, whatever version of nad is installed, and the version of vLLM: the community's build
    for CPUs has another name, under which its own program `vllm` does not find itself.
    """
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    points = configparser.ConfigParser(delimiters="=")
    points.read_dict(project["entry-points"])
    with (_described(folder, "nad", project["version"]) / "entry_points.txt").open("w") as file:
        points.write(file)
    if not list(distributions(name="vllm")):
        _described(folder, "vllm", f"{check_version()}+cpu")
    return str(folder)


def _described(folder: Path, name: str, version: str) -> Path:
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return about
