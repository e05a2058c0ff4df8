"""Search: the recipes of a space that are best for several objectives, on one machine or on many."""
