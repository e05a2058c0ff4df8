"""Steps, which change a model: one folder or file a step."""
