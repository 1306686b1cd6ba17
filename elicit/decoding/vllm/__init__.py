"""What of this suite runs inside vLLM's workers: the choice of tokens, their statistics, and what plans moved.

Imported by the workers, where vLLM is installed; the engine is `elicit.decoding.engines.vllm`.
"""
