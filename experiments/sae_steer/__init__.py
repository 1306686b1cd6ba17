"""Where, when and how strongly a feature must be steered along."""
