"""What the units of a model do on data: values and gradients."""
