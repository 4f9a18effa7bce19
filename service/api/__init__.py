"""The HTTP API under ``/api/v1``: the operations of a running service for the CLI, scripts and RIS systems."""
