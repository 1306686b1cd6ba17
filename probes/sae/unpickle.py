"""Tensors of a pickled file into safetensors: a program of its own, which needs torch and safetensors alone.

    python unpickle.py SOURCE TARGET

It is run by the interpreter that the user names, in a process of its own, and reads tensors and numbers alone
(`weights_only`): code that a file holds is not run there either.
"""

import pickle
import sys


def main(source: str, target: str) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        held = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise SystemExit("it is cut or holds more than tensors; save its state_dict() alone") from None
    except (EOFError, OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"it cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__})") from None
    if not isinstance(held, dict):
        raise SystemExit(f"it holds a {type(held).__name__}, not a table of tensors")
    tensors = {}
    for name, value in held.items():
        if isinstance(value, (int, float)):
            value = torch.tensor(value)
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise SystemExit(f"its {name!r} is a {type(value).__name__}, not a tensor; save the state_dict() alone")
        tensors[name] = value.detach().clone().contiguous()
    save_file(tensors, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
