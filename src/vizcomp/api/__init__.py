"""The package from Python: one call for what a command does."""
