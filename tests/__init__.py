"""Tests. What the packages' types are checked by is put in place before anything imports them."""

from tests.support import typed

typed.install()
