"""Handles in evaluation harnesses of others, each with its own prompts, metrics and logs."""
