"""How much each unit of a group matters, one family per file."""
