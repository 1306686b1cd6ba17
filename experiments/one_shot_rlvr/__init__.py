"""One example is enough: how sure that is over seeds and examples, and what happens after the example is solved."""
