"""Attacks on what smalti promises. docs/reliability.md says what they found.

Each prints what it did in its last line, and ends with 1 if a promise broke.
"""
