"""Small helpers that know no model: names, messages, files, amounts, progress."""
