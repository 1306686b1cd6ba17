"""The organisms' own task: problems, the language of their worked answers, solver and verifier."""
