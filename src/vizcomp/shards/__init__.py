"""Many photos in one file, a tar of WebDataset or a Parquet table: read in order, and written again
with others."""
