"""Rate against accuracy: what codecs cost, and what vision systems still see."""
