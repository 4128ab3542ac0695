"""Assembly: reads a recipe, checks it before data and weights, and puts the parts together."""
