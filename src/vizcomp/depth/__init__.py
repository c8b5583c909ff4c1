"""How near things are."""
