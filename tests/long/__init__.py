"""Long runs: whether memory, descriptors and the cost of one sample stay what they were."""
