"""SAE features: read where they answer to an instruction, searched, tried, and held to what could falsify them."""
