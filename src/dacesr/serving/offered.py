"""The models that a service offers: known to clients by their names alone, each loaded once."""

from collections.abc import Iterable
from pathlib import Path

import torch

from dacesr.engine import Precision
from dacesr.inference import Upscaler
from dacesr.making import Sentences
from dacesr.serving.wishes import Refusal


class Offered:
    """Models by name; of a file the name is its stem, as nobody outside needs to know the folder.

    Attributes:
        names: The first is the one that is used where none is named.
        warnings: Collects what the models have to say.
    """

    def __init__(
        self,
        sources: Iterable[str],
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
    ) -> None:
        """Name and load them.

        Args:
            sources: What `Upscaler.load` takes.
            device: Where they run.
            precision: Of the arithmetic.

        Raises:
            ValueError: There is none, two have one name, or one cannot be loaded.
        """
        self._sources = _named(sources)
        if not self._sources:
            raise ValueError("a service needs at least one model; got none")
        self.names = tuple(self._sources)
        self.warnings = Sentences()
        self._loaded = {
            name: Upscaler.load(source, device=device, precision=precision, warn=self.warnings)
            for name, source in self._sources.items()
        }
        self.of(None).prepare()

    def name(self, wanted: str | None) -> str:
        """The name that a wish stands for.

        Raises:
            Refusal: There is no such model.
        """
        name = self.names[0] if wanted is None else wanted
        if name not in self._sources:
            raise Refusal("unknown_model", f"there is no model {name[:40]!r} here; there are {', '.join(self.names)}")
        return name

    def of(self, wanted: str | None) -> Upscaler:
        """A model.

        Raises:
            Refusal: There is no such model.
        """
        return self._loaded[self.name(wanted)]

    def public(self, sentence: object) -> str:
        """A sentence that calls models by their names, whatever their files are."""
        said = str(sentence)
        for name, source in self._sources.items():
            said = said.replace(source, name)
        return said


def _named(sources: Iterable[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for source in sources:
        path = Path(source).expanduser()
        name = path.stem if path.is_file() else source
        if name in named:
            raise ValueError(f"{named[name]} and {source} would both be called {name}: rename one, or leave it out")
        named[name] = source
    return named
