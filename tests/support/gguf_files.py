"""GGUF files as tests write them."""

from __future__ import annotations

from gguf import GGUFWriter


def finish(writer: GGUFWriter) -> None:
    """Write all that a writer was given, and close its file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
