"""Walk through a pruned model beside its original and fit its layers, one after the other."""
