"""A process that is looked at while it runs."""

import subprocess
from collections.abc import Callable, Mapping, Sequence

_EVERY_S = 0.2


def run_watched(
    command: Sequence[str], watch: Callable[[], None], environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end and return what it wrote; `watch` is called now and then. No path leaves it running."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    with process:
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=_EVERY_S)
                except subprocess.TimeoutExpired:
                    watch()
                else:
                    return subprocess.CompletedProcess(command, process.returncode, out, err)
        except BaseException:
            process.kill()
            raise
