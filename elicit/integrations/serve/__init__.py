"""`elicit serve`: an endpoint that speaks OpenAI's chat and completion protocol, whose models are mechanisms.

`requests` says what a request may hold and refuses the rest by name; `served` knows the names and answers a batch;
`queue` collects what arrives together; `app` is the web application, with health, metrics and limits; `flow` says what
of an answer may be sent while it is decoded, and `events` sends it. What a request gets does not depend on what else is
in its batch: in fp32 it is equal to what it gets alone.
"""
