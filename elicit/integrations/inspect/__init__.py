"""Any handle as a model of Inspect: `inspect eval task.py --model elicit/<method>:<model>`.

registry.py     what Inspect finds; imports nothing but Inspect
provider.py     the model: who waits is decoded together
arguments.py    from a model's name and `-M` arguments to a handle
fields.py       every field of Inspect's `GenerateConfig`: honoured, Inspect's own, or refused
requests.py     from messages and a configuration to a prompt, a decoder and random numbers
answers.py      from traces to Inspect's output, with metadata as plain JSON
reading.py      what only a forward over prompt and answer tells: alternatives, the prompt's log-probabilities,
                activations
"""
