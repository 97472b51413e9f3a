"""Denoisers behind one small interface; load and save as diffusers folders."""
