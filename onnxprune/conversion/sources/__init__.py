"""The kinds of networks that can be exported, one a file; see `conversion.base`."""
