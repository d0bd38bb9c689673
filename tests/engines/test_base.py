"""What every engine says of itself."""

import json

import pytest
from planted import END, PlantedEngine, manifest, record, sample
from served import post, served
from tiny import WINDOW, tiny_engine

from nad.engines.base import Engine
from nad.runs.records import MemoryRun
from nad.runs.replay_engine import ReplayEngine
from nad.server.settings import Defaults, Settings

RUN = MemoryRun(manifest(n=1), [record("p0", [sample(0, [4, END], {1: 0})])])


@pytest.mark.parametrize(
    ("engine", "window"), [(tiny_engine(), WINDOW), (ReplayEngine(RUN), None), (PlantedEngine(), None)]
)
def test_engines_keep_the_contract_and_know_their_context_window(engine: Engine, window: int | None) -> None:
    assert isinstance(engine, Engine)
    assert engine.context_window == window


def test_the_server_refuses_a_prompt_that_leaves_no_room_in_the_window() -> None:
    body = {"model": "planted", "prompt": "x" * 50, "max_tokens": 2}
    for window, status in ((51, 200), (50, 400), (None, 200)):
        with served(PlantedEngine(context_window=window), Settings(Defaults(n=2, stop="1"))) as server:
            got, _, answer = post(f"{server.url}/v1/completions", body)
        assert got == status
        if status == 400:
            assert json.loads(answer)["error"]["message"] == "the prompt has 50 tokens; at most 49 are allowed"
