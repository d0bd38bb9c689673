"""Planted runs, whose neurons are chosen by hand. For tests and examples; nothing in nad imports it."""
