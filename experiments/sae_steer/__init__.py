"""Where, when and how hard a feature must be pushed."""
