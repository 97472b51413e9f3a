"""The engine: objective, multiplier, targets, methods, and the loop that runs them."""
