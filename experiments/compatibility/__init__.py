"""Every type of causal language model that the installed `transformers` maps, built small and tried."""
