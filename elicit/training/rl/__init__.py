"""Reinforcement learning with verifiable rewards: the loop, its losses, its rewards, and what is read from it."""
