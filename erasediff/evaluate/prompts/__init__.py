"""Judging text-to-image models: drawing prompts, looking at the images, and counting prompt by prompt."""
