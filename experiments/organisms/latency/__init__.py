"""Which mechanism finds how rare a skill: each mechanism by latency, and on the twins without the skill."""
