"""A silent fault: what it changes, the property that it breaks, and the test files that state it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Fault:
    """Args: a name; the file, and lines of it that stand there once; what takes their place; the property that this
    breaks; test files; the environment that these need (`.venv-NAME`), where it is not the suite's own."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]
    needs: str = ""

    @property
    def path(self) -> Path:
        return ROOT / self.file

    @property
    def module(self) -> str:
        return ".".join(Path(self.file).with_suffix("").parts).removesuffix(".__init__")

    @property
    def changed(self) -> str:
        """The file's source with the fault.

        Raises:
            ValueError: its lines do not stand there once.
        """
        source = self.path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands {source.count(self.old)} times in {self.file}")
        return source.replace(self.old, self.new)
