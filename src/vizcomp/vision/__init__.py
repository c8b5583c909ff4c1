"""Who looks, and what "the same answer" means."""
