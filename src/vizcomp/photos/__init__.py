"""A picture in memory."""
