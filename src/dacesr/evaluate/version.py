"""What of this program decides scores: its files of networks, weights, degradations, measures and pictures."""

import hashlib
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
DECIDING = (
    *("config", "degradation", "metrics", "nets"),
    *("adaptivefile.py", "architectures.py", "baselinefile.py", "checkpoint.py", "featurefile.py", "ncnnfile.py"),
    *("pairing.py", "transformerfile.py", "conditioning.py", "degrading.py", "engine.py", "image.py", "imresize.py"),
    *("inference.py", "picture.py", "sources.py", "tilerunner.py", "tiling.py"),
    *("evaluate/measures.py", "evaluate/methods.py", "evaluate/sets.py"),
)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hexadecimal digits that change when a file changes on which scores depend.

    Raises:
        FileNotFoundError: One of these files is not there.
    """
    found = hashlib.sha256()
    for name in DECIDING:
        path = PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]
