"""The .vzc bytes: fields, files of one image, packs of many, and the coding of bit planes. No torch
here."""
