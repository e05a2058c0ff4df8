"""A graph as a torch module: differentiable, on any device that torch has."""
