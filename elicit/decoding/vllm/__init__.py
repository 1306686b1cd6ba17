"""What the vllm engine (`elicit.decoding.engines.vllm`) is made of.

`calls`, `chooser` and `worker` run inside vLLM's workers: the choice of tokens, their statistics, and what plans moved.
`phases` turns what comes back into generations.
"""
