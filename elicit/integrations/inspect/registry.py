"""What Inspect finds by the entry point `inspect_ai`. A failing import here would only be a warning there."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="elicit")  # type: ignore[untyped-decorator, unused-ignore]
def elicit() -> type[ModelAPI]:
    from elicit.integrations.inspect.provider import ElicitAPI

    return ElicitAPI
