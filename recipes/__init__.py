"""Recipes that are shipped: one TOML file each, known by its name to `--recipe` and `Recipe.read`."""
