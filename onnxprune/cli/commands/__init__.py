"""One command per file, each called `command`; heavy imports happen inside them, so that `--help` is instant."""
