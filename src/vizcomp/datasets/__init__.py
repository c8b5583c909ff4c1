"""Labelled pictures and photos to learn from."""
