"""Where reinforcement learning selects among what a model can do, and where it creates: one map."""
