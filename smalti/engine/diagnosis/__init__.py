"""The engine's side of a diagnosis: signals that a step has anyway, and who says what the rules see in them."""
