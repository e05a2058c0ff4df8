"""Walk through a pruned model beside its original and mend its layers, one after the other."""
