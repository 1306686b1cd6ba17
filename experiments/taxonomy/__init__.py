"""Which unsupervised categories find the behaviours of an organism's thoughts."""
