"""Training methods: what takes part in a training beside its loss, one file each."""
