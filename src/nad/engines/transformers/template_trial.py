"""A program: renders a chat template it reads from standard input, within bounds on time and memory.

Templates come with models, so they are strangers' code, and nothing inside a process can stop a multiplication that
makes a gigabyte. Other faults of a template are not reported here: rendering it in earnest finds them.
"""

import json
import resource
import sys

SECONDS, MEGABYTES, CHARACTERS = 3, 512, 10_000_000
TOO_LARGE = 3
"""The exit code for a template that wants more memory, or writes more characters, than these."""


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20, MEGABYTES << 20))
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """{% generation %} ... {% endgeneration %}, which transformers adds to the language."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    given = json.load(sys.stdin)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, *args, **options: json.dumps(value, indent=options.get("indent"))
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: "1 January 2000"}
    try:
        text = environment.from_string(given["template"]).render(**given["arguments"])
    except MemoryError:
        return TOO_LARGE
    except Exception:
        return 0
    return TOO_LARGE if len(text) > CHARACTERS else 0


if __name__ == "__main__":
    sys.exit(main())
