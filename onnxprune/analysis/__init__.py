"""Analysis of a model before it runs on data: shapes, groups, layers, cost."""
