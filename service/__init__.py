"""Composition root: HTTP API, CLI, start and stop."""
