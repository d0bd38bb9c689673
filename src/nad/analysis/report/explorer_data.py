"""The data of the report's explorer: for each problem what its picture needs and its texts, compressed separately."""

import base64
import gzip
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from nad.analysis.summary import AGREEMENT, ProblemDigest, RunDigest, shortened


def packed(value: object) -> str:
    """JSON, compressed, as base64: nothing in it can end the element that carries it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate is not UTF-8; a text that holds one still has to be shown.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode()


def index(runs: Sequence[RunDigest]) -> list[dict[str, object]]:
    """One entry a run: its label and its problems' names with the share of correct samples."""
    return [
        {"label": run.label, "problems": [{"name": p.problem, "correct": _share(p.correct)} for p in run.problems]}
        for run in runs
    ]


def _share(correct: Float[np.ndarray, " n"]) -> float | None:
    graded = correct[np.isfinite(correct)]
    return float(graded.mean()) if len(graded) else None


def picture(problem: ProblemDigest) -> dict[str, object]:
    """Everything but the texts. `xy` and `agreement` are bytes: places in [0, 255], and S in 1/255, upper triangle."""
    places = np.stack(embeddings(problem.similarity))
    upper = np.triu_indices(problem.n, 1)
    agreement = np.rint(255 * problem.similarity[:, upper[0], upper[1]]).astype(np.uint8)
    return {
        "positions": problem.positions.tolist(),
        "lengths": problem.lengths.tolist(),
        "correct": _optional(problem.correct),
        "entropy": _optional(np.round(problem.entropy, 4)),
        "answers": problem.answers,
        "sizes": problem.sizes.tolist(),
        "chosen": {name: problem.chosen(name) for name in AGREEMENT},
        "distinct": problem.distinct.tolist(),
        "computed": problem.computed.tolist(),
        "order": np.argsort(places[-1, :, 0], kind="stable").tolist(),
        "ends": None if problem.text_end is None else problem.text_end.tolist(),
        "xy": _bytes(_to_bytes(places)),
        "agreement": _bytes(agreement),
    }


def _optional(values: Float[np.ndarray, " n"]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _bytes(values: UInt8[np.ndarray, "..."]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _to_bytes(places: Float[np.ndarray, "p n 2"]) -> UInt8[np.ndarray, "p n 2"]:
    """One scale for all positions, so that the picture may grow and shrink as the slider moves."""
    reach = max(float(np.abs(places).max()), 1e-9)
    return np.rint(127.5 * (1 + places / reach)).astype(np.uint8)


def embeddings(similarity: Float[np.ndarray, "p n n"]) -> list[Float[np.ndarray, "n 2"]]:
    """Classical MDS of 1 - S at each position, turned and mirrored to lie closest to the next position's."""
    places: list[np.ndarray] = []
    for s in similarity[::-1]:
        place = classical_mds(1 - s.astype(float))
        if places:
            u, _, vt = np.linalg.svd(place.T @ places[0])
            place = place @ u @ vt
        places.insert(0, place)
    return places


def classical_mds(distance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n 2"]:
    """The two leading coordinates whose distances come closest to the given ones."""
    n = len(distance)
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centre @ distance**2 @ centre)
    place = vectors[:, ::-1][:, :2] * np.sqrt(values[::-1][:2].clip(0))
    return np.pad(place, ((0, 0), (0, 2 - place.shape[1])))


def texts(problem: ProblemDigest, characters: int) -> dict[str, object]:
    """The prompt and the samples' texts, each up to this length."""
    return {
        "prompt": shortened(problem.prompt, characters),
        "texts": [shortened(text, characters) for text in problem.texts],
    }
