"""Benchmarks beside the hot paths: each prints a ratio against a peer or a smaller size in the same run."""
