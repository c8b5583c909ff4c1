"""Rate against accuracy."""
