"""Steps in a row, from a file to a result; recipes."""
