"""What a request may hold. Fields that nothing here can honour are refused by name unless they ask for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from probes.errors import UserError

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "logit_bias": (None, {}),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "modalities": (None, ["text"]),
}
"""Fields of the protocol that are refused unless they hold one of these."""
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
"""Fields that say nothing about the answer."""
SAMPLES = 64  # the most answers of one request

Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Steering(_Strict):
    """One intervention of a plan: a vector, by value or by the name that the server was given for it.

    `first` and `stop` are steps (0 is the last token of the prompt), or `positions` of the prompt; as
    `steering.interventions.When` has them.
    """

    vector: list[float] | Text
    layer: int | None = None
    point: str = "resid_post"
    what: Literal["add", "project out"] = "add"
    strength: float = 1.0
    first: int | None = None
    stop: int | None = None
    positions: list[int] | None = None


class Common(_Strict):
    """What chat and completions share; the fields after `seed` are this suite's own."""

    model: Text
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    n: Annotated[int, Field(ge=1, le=SAMPLES)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    seed: int | None = None
    sample_id: str = ""
    epoch: Annotated[int, Field(ge=0)] = 0
    kind: str | None = None
    plan: Annotated[list[Steering], Field(max_length=64)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Part(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Chat(Common):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)


class Completion(Common):
    prompt: Text | Annotated[list[int], Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_tokens

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None


Asked = Chat | Completion


def read(kind: type[Chat] | type[Completion], data: Any) -> Asked:
    """A request from its JSON.

    Raises:
        UserError: a field that is unknown, cannot be honoured or holds something else than it is for.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"a {type(data).__name__} was sent; send a JSON object")
    given = {key: value for key, value in data.items() if key not in IGNORED}
    for key, neutral in NEUTRAL.items():
        if key in given and given.pop(key) not in neutral:
            raise UserError(f"{key} was given and cannot be honoured here; leave it out")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise UserError(_told(error.errors(include_url=False, include_input=False))) from None


def _told(errors: Sequence[Any]) -> str:
    """The first fault, in one line."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where} is no field of this request; leave it out"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {first['msg'].lower()}{more}"
