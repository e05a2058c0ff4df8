"""Statistics of the units of a model on data: values and gradients."""
