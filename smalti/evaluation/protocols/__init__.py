"""Protocols: YAML, data only."""
