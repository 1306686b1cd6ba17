"""Does somebody's steering do what is asked of it: at every token, batched and padded, prefill and cached steps?

`check_steering` takes any Hugging Face model and any function that installs hooks, `check_endpoint` a server with
OpenAI's interface; both answer with a `SteeringReport`.
"""

from steering.check.endpoint import check_endpoint
from steering.check.model import check_steering
from steering.check.report import Answer, SteeringReport

__all__ = ["Answer", "SteeringReport", "check_endpoint", "check_steering"]
