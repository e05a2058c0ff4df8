"""Model to model, one transformation per file."""
