"""The recurrent codec: an image to .vzc and back."""
