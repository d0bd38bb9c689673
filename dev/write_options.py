"""Writes docs/options.md, every command's options, from the command line itself: python dev/write_options.py"""

from pathlib import Path

import typer

from nad.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "options.md"


def options_page() -> str:
    """The page as Markdown."""
    parts = [
        "# Every option\n",
        "Made from the command line by `python dev/write_options.py`; a test holds it against `--help`.",
        "`--debug` anywhere adds the traceback to an error.",
    ]
    group = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        parts += _command(f"nad {name}", command)
    return "\n".join(parts) + "\n"


def _command(name: str, command: object) -> list[str]:
    if hasattr(command, "commands"):
        return [line for sub, inner in sorted(command.commands.items()) for line in _command(f"{name} {sub}", inner)]
    arguments = [p for p in command.params if p.param_type_name == "argument"]  # type: ignore[attr-defined]
    usage = " ".join([name, *((p.name or "").upper() for p in arguments)])
    lines = ["", f"## `{usage}`", "", (command.help or "").split("\n\n")[0].replace("\n", " ")]  # type: ignore[attr-defined]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]  # type: ignore[attr-defined]
    if options:
        lines += ["", "| option | default | meaning |", "|---|---|---|"]
        lines += [_row(option) for option in options]
    return lines


def _row(option: object) -> str:
    names = ", ".join(f"`{o}`" for o in [*option.opts, *option.secondary_opts])  # type: ignore[attr-defined]
    default = option.default  # type: ignore[attr-defined]
    none = default is None or default is False or callable(default)
    shown = "required" if option.required else "" if none else f"`{default}`"  # type: ignore[attr-defined]
    meaning = " ".join((option.help or "").split()).replace("|", "\\|").replace("<", "&lt;")  # type: ignore[attr-defined]
    return f"| {names} | {shown} | {meaning} |"


if __name__ == "__main__":
    PAGE.write_text(options_page())
