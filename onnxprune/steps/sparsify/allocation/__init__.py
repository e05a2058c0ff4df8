"""How sparsity is shared out over layers, a file each; see `steps.sparsify.base.sparsity_allocation`."""
