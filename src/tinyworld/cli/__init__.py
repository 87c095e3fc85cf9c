"""The command line: parses first, imports torch last."""
