"""How a cut is spread over several steps, one schedule per file."""
