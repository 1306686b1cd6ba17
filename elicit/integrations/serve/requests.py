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
SAMPLES = 64  # the most answers to one prompt
PROMPTS = 64  # the most prompts of one request
TOP = 5  # the most alternatives to each token that OpenAI's completions give; here the token itself stands alone

Text = Annotated[str, Field(min_length=1)]
Place = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]  # of a token, which 64 bits hold when it is counted on
Ids = Annotated[list[int], Field(min_length=1)]


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
    first: Place | None = None
    stop: Place | None = None
    positions: list[Place] | None = None


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

    @property
    def each(self) -> list[Chat]:
        """A request for each prompt."""
        return [self]


class Completion(Common):
    prompt: Text | Ids | Annotated[list[Text] | list[Ids], Field(min_length=1, max_length=PROMPTS)]
    logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_tokens

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None

    @property
    def each(self) -> list[Completion]:
        """A request for each prompt, which it gets what it gets alone."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self]
        return [self.model_copy(update={"prompt": one}) for one in self.prompt]


Asked = Chat | Completion


def read(kind: type[Chat] | type[Completion], data: Any) -> Asked:
    """A request from its JSON.

    Raises:
        UserError: a field that is unknown, cannot be honoured or holds something else than it is for.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"a {type(data).__name__} was sent; send a JSON object")
    given = {key: value for key, value in data.items() if key not in IGNORED}
    _check_whole(given)
    for key, neutral in NEUTRAL.items():
        if key in given and given.pop(key) not in neutral:
            raise UserError(f"{key} was given and cannot be honoured here; leave it out")
    try:
        asked = kind.model_validate(given)
    except ValidationError as error:
        raise UserError(_told(error.errors(include_url=False, include_input=False))) from None
    if asked.max_tokens is not None and asked.limit != asked.max_tokens:
        raise UserError(
            f"max_tokens = {asked.max_tokens} and max_completion_tokens = {asked.limit} were given; give one of them"
        )
    return asked


def _check_whole(given: Mapping[str, Any]) -> None:
    """Refuse a text that holds half of a character, which JSON can write and nobody can encode."""
    rest: list[tuple[str, Any]] = [("", given)]
    while rest:
        where, value = rest.pop()
        if isinstance(value, str) and _broken(value):
            raise UserError(f"{where} holds half of a character; send whole ones")
        if isinstance(value, Mapping) and any(_broken(key) for key in value):
            raise UserError("the name of a field holds half of a character; send whole ones")
        within = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        rest += [(f"{where}.{key}".removeprefix("."), one) for key, one in within if isinstance(one, str | dict | list)]


def _broken(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _told(errors: Sequence[Any]) -> str:
    """The first fault, in one line."""
    first = errors[0]
    if first["loc"][:1] == ("prompt",) and len(first["loc"]) > 1:  # none of the forms that it may have
        return f"prompt: give a text or token ids, or 1 to {PROMPTS} of either, none of them empty"
    where = ".".join(str(part) for part in first["loc"])
    if first["loc"][:1] == ("messages",) and first["loc"][2:3] == ("content",):
        where = ".".join(str(part) for part in first["loc"][:3])
        return f"{where}: give a text, or parts of type text; no images, sounds or files are read here"
    if first["type"] == "extra_forbidden":
        return f"{where} is no field of this request; leave it out"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {first['msg'].lower()}{more}"
