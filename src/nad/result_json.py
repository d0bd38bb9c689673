"""A result as JSON: what `nad generate --json` prints and the server reports. Its keys are a public contract."""

import math

from nad.types import Result


def result_json(result: Result) -> dict[str, object]:
    """The object described in docs/reference.md; every value is finite, or null."""
    group = result.group
    return {
        "text": result.text,
        "selected": result.selected,
        "selector": result.selector,
        "n": len(group.completions),
        "stop_at": result.stop_at,
        "distinct": group.distinct,
        "candidates": [
            {
                "index": c.index,
                "text": c.text,
                "tokens": len(c.tokens),
                "finish_reason": c.finish_reason,
                "activated": None if c.activations is None else len(c.activations),
                "score": score if math.isfinite(score) else None,
            }
            for c, score in zip(group.completions, result.scores, strict=True)
        ],
        "usage": {
            "prompt_tokens": len(group.prompt_tokens),
            "sampled_tokens": group.sampled_tokens,
            "computed_tokens": group.computed_tokens,
            "continued_tokens": result.continued_tokens,
        },
        "timing": {
            "sample_s": group.sample_s,
            "capture_s": group.capture_s,
            "select_s": result.select_s,
            "continue_s": result.continue_s,
        },
        "model": result.model,
        "seed": result.params.seed,
        "notes": list(result.notes),
    }
