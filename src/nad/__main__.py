"""`python -m nad` is the command line."""

from nad.cli.main import entry

entry()
