"""Train the graph of a file itself: fine-tune, distil, rewind, resume."""
