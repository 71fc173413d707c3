"""Benchmarks: `make bench`. Each prints a table and, as the last line, JSON. Peers run in the same run."""
