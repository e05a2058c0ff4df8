"""Which units change nothing: known.py and rules.py say what is constant, liveness.py what is read."""
