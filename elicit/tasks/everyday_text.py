"""Everyday sentences in which nobody reasons."""

from __future__ import annotations

SENTENCES = (
    "The bus was late this morning and the rain came down in sheets.",
    "My neighbour keeps four hens, a goat and a very old dog.",
    "The soup needs more salt and a handful of fresh parsley.",
    "They painted the kitchen yellow over the long weekend.",
    "The museum opens at ten and is closed on public holidays.",
    "Her brother moved to Lisbon and works in a small bakery.",
    "A thin layer of snow covered the roofs along the river.",
    "The concert ended late and the last train had already left.",
    "He lost his umbrella in the library and found it at home.",
    "The garden is full of bees from April to the end of August.",
)
