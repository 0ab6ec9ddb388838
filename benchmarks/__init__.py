"""Measurements of the running product; see `docs/reference/benchmarks.md`."""
