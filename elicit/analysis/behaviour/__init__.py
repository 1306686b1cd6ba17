"""Analyses of what is answered: coverage, convergence, formats, reflection, where and for which questions."""
