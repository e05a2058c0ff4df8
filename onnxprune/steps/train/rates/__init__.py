"""How the learning rate changes over a training, one schedule per file."""
