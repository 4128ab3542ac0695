"""Interop: checkpoints of other projects, one declarative key table each."""
