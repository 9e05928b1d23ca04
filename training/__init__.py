"""Training: recipes, the loop and what it changes, the ways to take a step, checkpoints."""
