"""The budgets that a model may have to keep: a few functions per file, each the check behind one option of the gate.

Every file of this package, and every plug-in of the entry point group `onnxprune.gate`, adds to the table of `base`.
"""
