"""Results on the Hugging Face Hub: pushed with a card and a hash of every file, and pulled whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.hub.transfer import Pulled as Pulled
    from elicit.hub.transfer import Pushed as Pushed
    from elicit.hub.transfer import pull as pull
    from elicit.hub.transfer import push as push

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Pulled": "elicit.hub.transfer",
        "Pushed": "elicit.hub.transfer",
        "pull": "elicit.hub.transfer",
        "push": "elicit.hub.transfer",
    },
)
