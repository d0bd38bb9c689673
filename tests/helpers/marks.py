"""Reasons to skip a test."""

from importlib.util import find_spec

import pytest
import torch

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
needs_bf16 = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    reason="this processor's oneDNN has no bfloat16",
)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (nad[cluster])")
