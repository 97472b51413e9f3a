"""The unlearning engine: objective, multiplier, targets, methods, and the training loop."""
