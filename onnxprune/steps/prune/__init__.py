"""Remove the weakest units."""
