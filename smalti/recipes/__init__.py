"""Recipes: YAML, data only."""
