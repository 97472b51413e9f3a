"""Readers of images and labels from outside: strict, bounded, and never unpickling."""
