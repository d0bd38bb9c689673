"""`python -m nad` is the command line."""

from nad.cli import entry

entry()
