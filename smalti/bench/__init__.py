"""Bench: what a part costs beside its textbook form."""
