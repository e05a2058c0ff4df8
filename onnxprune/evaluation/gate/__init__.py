"""Budgets that models have to keep in CI.

request.py says what is asked, subject.py measures, budgets/ judges, run.py goes through the models.
"""
