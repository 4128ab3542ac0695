"""The zoo: healthy tiny recipes, and sick ones that differ from a healthy one by a line."""
