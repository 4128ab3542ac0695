"""Blocks, attention, norms, code search and gradient tricks that several parts share."""
