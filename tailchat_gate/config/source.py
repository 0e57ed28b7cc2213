"""Where the configuration is read from, again and again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tailchat_gate.config.load import ConfigError, Loaded, load
from tailchat_gate.config.marks import Marks, marks_of
from tailchat_gate.config.problem import Problem


class Source:
    """A configuration file, and the environment over it as it was at the start.

    `marks` are the states that the file, and those it names, had before they were last read. So
    what is written while it is read shows as a change.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path: Final = path
        self._environ = dict(environ)
        self.marks: Marks = {path: None}

    def __repr__(self) -> str:
        """Only the path: secrets may stand in the environment."""
        return f"<Source {self.path}>"

    def read(self) -> Loaded:
        """Read and check everything, as `load` does; raises ConfigError. Blocks."""
        while True:
            self.marks = marks_of(self.marks)
            loaded, problems, files = self._load()
            if self.marks.keys() >= set(files):
                break
            # A file that was not named before was read before its state was looked at.
            self.marks = dict.fromkeys((*self.marks, *files))
        self.marks = {path: self.marks[path] for path in files}
        if loaded is None:
            raise ConfigError(problems, files)
        return loaded

    def _load(self) -> tuple[Loaded | None, tuple[Problem, ...], tuple[Path, ...]]:
        try:
            loaded = load(self.path, self._environ)
        except ConfigError as refused:
            return None, refused.problems, refused.files
        return loaded, (), loaded.files
