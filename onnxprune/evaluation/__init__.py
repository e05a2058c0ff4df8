"""How good, how fast and how valid a model is; budgets for CI."""
