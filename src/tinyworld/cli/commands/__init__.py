"""One module per command: `add_parser` describes it, `run` does it. Heavy imports happen inside `run`."""
