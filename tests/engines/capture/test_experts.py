"""Experts are found by what they compute; what computes something else, or cannot be told apart, is refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mixtures import MIXTURES, WIDTH, tiny_mixture
from tiny import HIDDEN, LAYERS, tiny_model
from torch import nn

from nad.engines.capture.expert_tap import ExpertTap
from nad.engines.capture.experts import Always, ClampedGating, ExpertLayer, PlainGating, Routed, Stack
from nad.engines.capture.gates import GatedFFN
from nad.engines.capture.layers import DenseLayers, ExpertLayers, find_feed_forwards
from nad.errors import NadError, UsageError


def found(family: str) -> ExpertLayers:
    layers = find_feed_forwards(tiny_mixture(family), LAYERS)
    assert isinstance(layers, ExpertLayers)
    return layers


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", MIXTURES)
def test_every_family_is_read_in_every_precision(family: str, dtype: torch.dtype) -> None:
    layers = find_feed_forwards(tiny_mixture(family, dtype), LAYERS)
    assert layers.experts == MIXTURES[family].slots


@pytest.mark.parametrize("order", ["swapped", "in turns"])
def test_which_part_of_a_merged_map_is_the_gate_is_found_by_computing(order: str) -> None:
    model = tiny_mixture("mixtral")
    for layer in model.model.layers:
        experts = layer.mlp.experts

        def forward(x: Any, index: Any, weights: Any, experts: Any = experts) -> Any:
            out = torch.zeros_like(x)
            for row in range(len(x)):
                for e, w in zip(index[row], weights[row], strict=True):
                    both = experts.gate_up_proj[e] @ x[row]
                    up, gate = both.chunk(2) if order == "swapped" else (both[::2], both[1::2])
                    out[row] += w * (experts.down_proj[e] @ (experts.act_fn(gate) * up))
            return out

        experts.forward = forward
    stack = find_feed_forwards(model, LAYERS).layers[0].stack
    assert stack.gate == (slice(WIDTH, 2 * WIDTH) if order == "swapped" else slice(1, 2 * WIDTH, 2))


def with_experts(change: Callable[[Any], None], family: str = "mixtral") -> nn.Module:
    """A mixture with something done to the module of experts of its second layer."""
    model = tiny_mixture(family)
    change(model.model.layers[1].mlp)
    return model


def twice_as_much(mlp: Any) -> None:
    forward = mlp.forward
    mlp.forward = lambda x: 2 * forward(x)


def weights_on_inputs(mlp: Any) -> None:
    """As in Llama 4: the router's weights scale what goes in, and the gate is no longer act(x W_g)."""
    experts = mlp.experts.forward
    mlp.experts.forward = lambda x, index, weights: experts(
        x * weights.mean(dim=1, keepdim=True), index, torch.ones_like(weights)
    )


def one_more(mlp: Any) -> None:
    mlp.other = type(mlp.experts)(mlp.experts.config)


def a_second_pass(mlp: Any) -> None:
    forward = mlp.forward
    mlp.forward = lambda x: (forward(x), forward(x))[0]


def silent(mlp: Any) -> None:
    """What kernels do that replace a whole module: the experts inside are never called."""
    experts = mlp.experts.forward

    def forward(x: Any) -> Any:
        flat = x.view(-1, HIDDEN)
        _, weights, index = mlp.gate(flat)
        return experts(flat, index, weights).view_as(x)

    mlp.forward = forward


@pytest.mark.parametrize("change", [twice_as_much, weights_on_inputs, one_more, a_second_pass, silent])
def test_what_computes_something_else_is_refused_by_name(change: Callable[[Any], None]) -> None:
    with pytest.raises(
        UsageError, match=r"MixtralForCausalLM is a mixture of experts.* its layer 1 computes"
    ) as caught:
        find_feed_forwards(with_experts(change), LAYERS)
    assert "\n" not in str(caught.value)


def test_a_feed_forward_beside_the_experts_that_nobody_accounts_for() -> None:
    model = tiny_mixture("mixtral")
    model.model.layers[1].beside = tiny_model("llama").model.layers[0].mlp
    with pytest.raises(UsageError, match="what its layer 1 computes is not known"):
        find_feed_forwards(model, LAYERS)


def test_experts_that_are_not_stacked() -> None:
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp = nn.ModuleList([layer.mlp, layer.mlp.__class__(model.config)])
    with pytest.raises(UsageError, match="LlamaForCausalLM is a mixture of experts that are not stacked"):
        find_feed_forwards(model, LAYERS)


def test_experts_whose_widths_differ() -> None:
    model = tiny_mixture("mixtral")
    wider = tiny_mixture("mixtral", intermediate_size=2 * WIDTH)
    model.model.layers[1] = wider.model.layers[1]
    with pytest.raises(UsageError, match="whose widths differ between layers"):
        find_feed_forwards(model, LAYERS)


def test_experts_that_are_not_numbers() -> None:
    with pytest.raises(NadError, match="no finite numbers: damaged weights"):
        find_feed_forwards(with_experts(lambda mlp: mlp.experts.down_proj.data.fill_(torch.nan)), LAYERS)


def test_a_dense_model_has_no_experts() -> None:
    layers = find_feed_forwards(tiny_model("llama"), LAYERS)
    assert isinstance(layers, DenseLayers) and layers.experts == 1


def test_a_layer_that_runs_twice_is_an_error() -> None:
    layers = found("qwen3-moe")
    experts = layers.layers[0].watched
    tap = ExpertTap(layers.layers)
    given = (torch.zeros(1, HIDDEN), torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2))
    with tap.listening(slice(None)):
        experts(*given)
        with pytest.raises(NadError, match="layer 0 ran twice"):
            experts(*given)
    with pytest.raises(NadError, match=r"captured 1 of 3 layers with \[1\] rows, expected 1"):
        tap.gates(1)


def test_what_a_model_does_to_its_inputs_afterwards_does_not_reach_the_tap() -> None:
    layers = found("mixtral")
    tap = ExpertTap(layers.layers[:1])
    hidden, weight = torch.ones(3, HIDDEN), torch.ones(3, 2)
    with tap.listening(slice(-1, None)):
        layers.layers[0].watched(hidden, torch.tensor([[0, 1]] * 3), weight)
    hidden.zero_(), weight.zero_()
    (seen,) = tap.gates(1)
    assert seen.hidden.eq(1).all() and seen.weight.eq(1).all() and seen.expert.tolist() == [[0, 1]]
    assert seen.hidden.untyped_storage().nbytes() == HIDDEN * 4, "the other positions must not be held"


def test_clamped_gates_by_hand() -> None:
    gating = ClampedGating(alpha=1.0, limit=2.0)
    x = torch.tensor([-5.0, 0.0, 1.0, 9.0])
    assert gating.up(x).tolist() == [-1.0, 1.0, 2.0, 3.0]
    expected = [-5 * 0.0066928509, 0.0, 0.7310585786, 2 * 0.8807970780]
    torch.testing.assert_close(gating.gate(x), torch.tensor(expected))


def by_hand() -> ExpertLayer:
    """Two experts of one neuron and a shared one of one, in a model of width 1: x, 2 x and 3 x are their gates."""
    merged = torch.tensor([[[1.0], [0.0]], [[2.0], [0.0]]])
    down = torch.tensor([[[10.0]], [[100.0]]])
    stack = Stack(merged, None, slice(0, 1), slice(1, 2), down, None, False, PlainGating(nn.Identity()))
    gate, out, share = (nn.Linear(1, 1, bias=False) for _ in range(3))
    for linear, weight in ((gate, 3.0), (out, 1000.0), (share, 0.0)):
        linear.weight.data.fill_(weight)
    return ExpertLayer(nn.Identity(), stack, Always(GatedFFN(gate, slice(0, 1), nn.Identity(), out), share))


def test_eq_1_by_hand() -> None:
    """The first token goes to expert 1 alone in effect, the second to expert 0; half of the shared expert counts."""
    layer, unembed = by_hand(), torch.tensor([[1.0], [-1.0]])
    seen = Routed(torch.tensor([[1.0], [2.0]]), torch.tensor([[1], [0]]), torch.tensor([[0.5], [0.25]]))
    with torch.no_grad():
        weighted, plain = (layer.scores(seen, unembed, router) for router in (True, False))
    assert weighted.tolist() == [[100.0, 1500.0], [-5.0, -3000.0]]
    assert plain.tolist() == [[200.0, 3000.0], [-20.0, -6000.0]]
    place = torch.tensor([[0, 1], [1, 0]])
    assert layer.number(seen.expert, place).tolist() == [[1, 2], [2, 0]]


def test_scores_are_those_of_the_experts_that_ran_alone() -> None:
    layer = found("qwen3-moe").layers[0]
    seen = Routed(torch.ones(5, HIDDEN), torch.tensor([[0, 3]] * 5), torch.ones(5, 2))
    with torch.no_grad():
        assert layer.scores(seen, torch.ones(5, HIDDEN), True).shape == (5, 2 * WIDTH)
