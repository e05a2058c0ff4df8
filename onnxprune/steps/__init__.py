"""What can be done to a model: one folder or file a step."""
