"""Parsers of strangers' bytes under coverage-guided fuzzing: ``make fuzz``. See ``targets`` and ``__main__``."""
