"""JPEG as integers (ITU-T T.81): read, transformed, quantised and written, as bytes in memory."""
