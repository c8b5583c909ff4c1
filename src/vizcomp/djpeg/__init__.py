"""d-JPEG: guides decide how much of each block a JPEG keeps."""
