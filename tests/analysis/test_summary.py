"""What a digest keeps of planted samples, against the formulas of the planting."""

import numpy as np
import pytest
from hand import hand_digest, hand_run

from nad.analysis.summary import AGREEMENT, STRONGEST, digest, shortened
from nad.errors import NadError
from nad.testing.planted_runs import PlantedSample, planted_crowd, planted_problem, planted_run, without


def only(samples):
    return digest(planted_run([planted_problem("only", samples)])).problems[0]


def test_positions_double_and_end_with_the_longest():
    problem = only([PlantedSample(tokens=150), PlantedSample(tokens=40)])
    assert problem.positions.tolist() == [32, 64, 128, 150]
    full = problem.outcome("knn")
    assert [problem.outcome("knn", p) is full for p in (32, 64, 128, 150, 9999, None)] == [False] * 3 + [True] * 3
    # n prefixes and the rest of sample 0
    assert [problem.outcome("knn", p).sampled for p in (32, 64, 128)] == [64 + 118, 104 + 86, 168 + 22]


def test_sizes_are_the_rate_times_the_tokens_so_far():
    problem = only([PlantedSample(tokens=150, shared=4, private=1), PlantedSample(tokens=40, shared=4, private=2)])
    assert problem.sizes.tolist() == [[160, 192], [320, 240], [640, 240], [750, 240]]
    assert problem.growth[0].tolist() == [160, 320, 480, 640, 750]
    assert problem.growth[1].tolist() == [192, 240]


def test_agreement_within_and_across_clusters():
    problem = only([PlantedSample(), PlantedSample(private=3), PlantedSample(cluster=1)])
    # After t tokens: 4t shared; 5t and 7t neurons; so 4 / (5 + 7 - 4).
    assert problem.similarity[:, 0, 1] == pytest.approx(1 / 2)
    assert problem.similarity[:, 0, 2].tolist() == [0, 0]


def test_choices_of_the_hand_run():
    problems = hand_digest().problems
    chosen = {name: [p.chosen(name)[-1] for p in problems] for name in AGREEMENT}
    assert chosen["medoid"] == [0, 1, 0] and chosen["knn"] == [0, 1, 0]
    assert chosen["minact"] == [3, 0, 0] and chosen["maxact"] == [0, 1, 3]
    assert chosen["knn@tokens"] == [0, 0, 0]


def test_shared_prefixes_are_computed_once():
    problem = hand_digest().problems[0]
    assert problem.distinct.tolist() == [4, 4]
    assert problem.computed.tolist() == [16 + 4 * 16, 16 + 4 * 48]


def test_only_whole_chunks_have_signals():
    problem = only([PlantedSample(tokens=70, entropy=(0.1, 0.2, 0.9), chunk_neurons=(10, 20, 5))])
    assert problem.chunks == pytest.approx(np.array([[10, 0.1, -0.1], [20, 0.2, -0.2]]))
    assert problem.entropy[0] == pytest.approx((32 * 0.1 + 32 * 0.2 + 6 * 0.9) / 70)


def test_strongest_neurons_are_the_shared_ones():
    # 64 tokens: 2,560 shared neurons of peak 2, 1,280 private ones of peak 1.
    problem = only([PlantedSample(shared=40, private=20), PlantedSample(shared=40, private=20)])
    assert STRONGEST[0] == 2000
    assert problem.strongest[0] == pytest.approx([1, 1])
    assert problem.strongest[1] == pytest.approx([40 / 80, 40 / 80])


def test_missing_ingredients_are_kept_as_missing():
    bare = digest(without(hand_run(), grades=True, signals=True, peaks=True)).problems[0]
    assert np.isnan(bare.correct).all() and np.isnan(bare.entropy).all()
    assert len(bare.chunks) == 0 and bare.strongest is None


def test_an_empty_run_is_an_error():
    with pytest.raises(NadError, match="no problems"):
        digest(planted_crowd(1, 2, 8).__class__(hand_run().manifest, []))


def test_shortened_text_says_what_it_left_out():
    assert shortened("abc", 3) == "abc"
    assert shortened("a" * 50 + "b" * 50, 30) == "a" * 20 + "\n[... 70 characters left out ...]\n" + "b" * 10
    assert shortened("abc", 0) == ""
