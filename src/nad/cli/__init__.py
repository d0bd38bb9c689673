"""The command line: commands, options, and how things look on a terminal. The only place that prints."""
