"""The program on the documentation's page about serving runs against a server."""

from pathlib import Path
from typing import Any

from served import MODEL, served
from tiny import tiny_engine

from nad.server.settings import Defaults, Limits, Settings

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"


def test_the_program_of_the_page_gets_an_answer() -> None:
    program = PAGE.read_text().split("```python\n", 1)[1].split("```", 1)[0]
    with served(tiny_engine(), Settings(Defaults(n=3, stop="4"), Limits(max_tokens=8))) as server:
        names: dict[str, Any] = {}
        here = program.replace(":8000", f":{server.port}").replace("Qwen2.5-0.5B-Instruct", MODEL)
        exec(compile(here, PAGE.name, "exec"), names)
        names["client"].close()
    assert names["answer"].choices[0].message.content
