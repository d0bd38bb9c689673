"""A tiny Llama as a GGUF file, made in code, with the byte-level tokenizer of `tiny`."""

from pathlib import Path
from typing import Any

import gguf
import torch
from tiny import END, HIDDEN, LAYERS, NEURONS, SPECIAL, TEMPLATE, VOCABULARY, WINDOW, tiny_model, tiny_tokenizer

_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_START = VOCABULARY - 1
_HEADS, _KEY_HEADS, _WIDTH = 4, 2, 8


def tiny_gguf(file: Path, template: str = TEMPLATE, layers: int = LAYERS, **tokens: int) -> Path:
    """Write the file. `tokens` are its eos, eot and eom token, by these names; eos is END unless said."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(NEURONS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KEY_HEADS)
    writer.add_rope_dimension_count(_WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    _add_tokenizer(writer, template)
    for name, token in {"bos": _START, "eos": END, **tokens}.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    for name, weight in _weights():
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: gguf.GGUFWriter, template: str) -> None:
    tokenizer: Any = tiny_tokenizer()
    known = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    texts = [*known, "zz", "zzz", *(f"<unused{i}>" for i in range(VOCABULARY - len(known) - 2))]
    special = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types([special if text in SPECIAL[:-1] else gguf.TokenType.NORMAL for text in texts])
    writer.add_token_merges(["z z", "zz z"])  # a file with fewer is not read
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)


def _weights() -> list[tuple[str, torch.Tensor]]:
    model = tiny_model("llama")
    found = [
        ("token_embd.weight", model.model.embed_tokens.weight),
        ("output_norm.weight", model.model.norm.weight),
        ("output.weight", model.lm_head.weight),
    ]
    for i, layer in enumerate(model.model.layers):
        for ours, theirs in _PARTS.items():
            weight = layer.get_submodule(ours).weight
            if theirs in ("attn_q", "attn_k"):
                weight = _interleaved(weight, _HEADS if theirs == "attn_q" else _KEY_HEADS)
            found.append((f"blk.{i}.{theirs}.weight", weight))
    return [(name, weight.detach().float()) for name, weight in found]


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF files have the two halves of a rotation beside each other."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return rows.swapaxes(1, 2).reshape(weight.shape).contiguous()
