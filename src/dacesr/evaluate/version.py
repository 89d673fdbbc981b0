"""What of this program decides scores: its files of networks, degradations, measures and pictures."""

import hashlib
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
DECIDING = (
    *("nets", "degradation", "metrics"),
    *("arrays.py", "conditioning.py", "degrading.py", "engine.py", "image.py", "imresize.py", "inference.py"),
    *("picture.py", "sources.py", "tiling.py", "evaluate/sets.py", "evaluate/measures.py", "evaluate/methods.py"),
)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hexadecimal digits that change when a file changes on which scores depend."""
    found = hashlib.sha256()
    for name in DECIDING:
        path = PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.is_file() else []:
            found.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]
