"""Evaluation: named protocols, adapters for anybody's tokenizer, the pass over images, results and their comparison."""
