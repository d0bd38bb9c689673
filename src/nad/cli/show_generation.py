"""How a decoding looks on a terminal and as JSON. The text goes to standard output, all about it to standard error."""

import sys

from nad.cli.progress import for_terminal, line
from nad.decoding import Finished, Progressed, Request, Text, stream
from nad.engines.base import Engine
from nad.engines.model_files import DEFAULT
from nad.stopping import Progress
from nad.types import Group, Result


def generate_on_terminal(engine: Engine, request: Request, quiet: bool) -> Result:
    """Run a request. Unless `quiet`, its text streams to standard output, a short account follows on standard error."""
    written = 0
    with line(f"sampling {request.n} answers") as progress:
        for event in stream(engine, request):
            if isinstance(event, Finished):
                result = event.result
            elif isinstance(event, Text) and event.rank == 0:
                written += len(event.text)
                if not quiet and sys.stdout.isatty():
                    progress.clear()  # the text is progress enough, and goes to the same place
                else:
                    progress.show(f"writing the chosen answer: {written:,} characters")
                if not quiet:
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
            elif isinstance(event, Progressed):
                progress.show(_sampling(event.progress, request))
    if not quiet:
        print(flush=True)
        print(f"\n{for_terminal(account(result))}", file=sys.stderr)
    return result


def _sampling(progress: Progress, request: Request) -> str:
    limit = f" of {request.stop.latest}" if request.stop.latest else ""
    return f"sampling {progress.n} answers: token {progress.position}{limit}, {progress.distinct} distinct"


def account(result: Result) -> list[str]:
    """What happened, in a few lines."""
    group, n = result.group, len(result.group.completions)
    full = n * len(result.completion.tokens)
    computed = group.computed_tokens + result.continued_tokens
    stop = "" if result.stop_at == "none" else f" (stop {result.stop_at})"
    seconds = {
        "sampling": group.sample_s,
        "capture": group.capture_s,
        "choice": result.select_s,
        "continuation": result.continue_s,
    }
    lines = [
        f"{n} samples of up to {group.position} tokens{stop}, {group.distinct} distinct",
        f"{result.selector} chose sample {result.selected}: score {result.scores[result.selected]:.4g}"
        + _neurons(group, result.selected),
        f"{computed:,} tokens computed ({group.computed_tokens:,} + {result.continued_tokens:,} for the winner), "
        f"{computed / full:.0%} of {n} full answers of its length ({full:,})",
        ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()),
    ]
    if len(result.completion.tokens) == result.params.max_tokens and result.completion.finish_reason == "length":
        lines.append(f"cut at {len(result.completion.tokens)} tokens (--max-tokens)")
    if result.model == DEFAULT:
        lines.append(f"{DEFAULT} is tiny and weak: it shows how the tool works, not how good an answer can be")
    return [*lines, *(f"note: {note}" for note in result.notes)]


def _neurons(group: Group, selected: int) -> str:
    """How many neurons the winner has, where they were captured."""
    counts = [len(c.activations) for c in group.completions if c.activations is not None]
    if len(counts) < len(group.completions):
        return ""
    return f", {counts[selected]:,} neurons (mean of all {sum(counts) / len(counts):,.0f})"
