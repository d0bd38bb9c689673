"""What the vLLM engine refuses before vLLM is asked."""

from pathlib import Path

import pytest
from mixtures import MIXTURES
from tiny import FAMILIES, tiny_config

from nad.engines.model_files import ModelFiles
from nad.engines.vllm.load import _refuse_experts
from nad.errors import UsageError


@pytest.mark.parametrize("family", MIXTURES)
def test_mixtures_of_experts_are_refused_by_name(family: str, tmp_path: Path) -> None:
    tiny_config(MIXTURES[family]).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"mix is a mixture of experts.*cannot read; --engine transformers"):
        _refuse_experts(ModelFiles("mix", str(tmp_path)), False)


def test_a_dense_model_is_not_refused(tmp_path: Path) -> None:
    tiny_config(FAMILIES["qwen3"]).save_pretrained(tmp_path)
    _refuse_experts(ModelFiles("dense", str(tmp_path)), False)
