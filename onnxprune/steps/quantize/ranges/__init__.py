"""Which part of what a value takes its grid covers: a file each, which registers itself."""
