"""Scores of single weights, a file per family; see `steps.sparsify.base.weight_criterion`."""
