"""Model files: their table, the cache, the downloads."""
