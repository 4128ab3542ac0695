"""The token store: what a tokenizer made of a data set, memory-mapped, in shards with checksums.

>>> from smalti.tokens.store import TokenStore
"""
