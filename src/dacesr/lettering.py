"""What drawings write, and with what: words and numbers of several scripts, and the fonts of the system."""

import functools
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

# consonants and vowels, which alternate in random words
SCRIPTS = {
    "latin": ("bcdfghjklmnpqrstvwxyz", "aeiou"),
    "accented": ("bcçdfghklmnñprsßtvzšžčł", "aeiouäöüéèêáíóúåøæ"),
    "cyrillic": ("бвгджзклмнпрстфхцчшщ", "аеиоуыэюя"),
    "greek": ("βγδζθκλμνξπρστφχψ", "αεηιουω"),
}
# fmt: off
_COMMON = (
    "exit", "open", "closed", "sale", "menu", "coffee", "bakery", "hotel", "parking", "station", "museum",
    "library", "street", "avenue", "road", "north", "south", "east", "west", "push", "pull", "stop",
    "taxi", "bus", "platform", "ticket", "info", "please", "do", "not", "enter", "private", "danger",
    "caution", "warning", "high", "voltage", "keep", "off", "fire", "door", "emergency", "water", "gas",
    "city", "centre", "market", "price", "total", "net", "weight", "ingredients", "sugar", "salt", "energy",
    "model", "serial", "made", "in", "input", "output", "power", "volume", "chapter", "section", "figure",
    "table", "the", "and", "of", "to", "for", "with", "from", "is", "are", "welcome",
    "free", "new", "today", "only", "opening", "hours", "monday", "friday", "no", "smoking", "mind",
    "the", "gap",
)
# fmt: on
_FORMS = (
    "{n}",
    "{n}.{d}{d}",
    "${n}.99",
    "{n} %",
    "{d}{d}:{d}{d}",
    "+{d}{d} {n} {n}",
    "#{n}",
    "{n}/{n}",
    "{n} km",
    "({n})",
)
_UNKNOWN = "\U0010fffe"  # no character; fonts draw their sign for missing glyphs


def random_word(rng: random.Random, script: str) -> str:
    """A number, a common English word, or a pronounceable string of letters, in lower, title or upper case."""
    kind = rng.random()
    if kind < 0.15:
        form = rng.choice(_FORMS)
        return form.format(n=rng.randrange(10 ** rng.randint(1, 4)), d=rng.randrange(10))
    if kind < 0.5 and script == "latin":
        word = rng.choice(_COMMON)
    else:
        letters = SCRIPTS[script]
        start = rng.random() < 0.3
        word = "".join(rng.choice(letters[(start + i) % 2]) for i in range(rng.randint(2, 9)))
    return rng.choice((word, word, word.capitalize(), word.upper()))


def random_words(rng: random.Random, script: str, count: int) -> str:
    """Several words with blanks, and now and then a mark, between them."""
    words = [random_word(rng, script) for _ in range(count)]
    marks = [rng.choice(("", "", "", "", ",", ".", "!", ":", "?", ";")) for _ in words]
    return " ".join(word + mark for word, mark in zip(words, marks, strict=True))


def find_fonts(places: Sequence[str | Path] | None, scripts: Sequence[str]) -> dict[str, list[str]]:
    """The font files that can write each script, sorted.

    Args:
        places: Font files and folders of them; the system's folders unless given.
        scripts: Keys of `SCRIPTS`; those that no font can write are left out of the answer.

    Raises:
        ValueError: A script or file is unknown, none is named, or no font can write any of the scripts.
    """
    if unknown := [script for script in scripts if script not in SCRIPTS]:
        raise ValueError(f"scripts are {', '.join(SCRIPTS)}, not {', '.join(unknown)}")
    if not scripts:
        raise ValueError("drawings need at least one script")
    places = _system_folders() if places is None else [Path(place) for place in places]
    files: list[str] = []
    for place in places:
        files += [str(place)] if place.is_file() else _font_files(place)
    found = {script: [file for file in files if _writes(file, script)] for script in dict.fromkeys(scripts)}
    found = {script: fonts for script, fonts in found.items() if fonts}
    if not found:
        where = ", ".join(str(place) for place in places) or "no folder"
        raise ValueError(
            f"no TrueType or OpenType font for {', '.join(scripts)} in {where}: install one, such as Debian's "
            "fonts-dejavu, or name font files"
        )
    return found


@functools.lru_cache(maxsize=64)
def load_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels, laid out in the same way on every system."""
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


def _system_folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
        folders = [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", local / "Microsoft/Windows/Fonts"]
    elif sys.platform == "darwin":
        folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    else:
        folders = [
            Path("/usr/share/fonts"),
            Path("/usr/local/share/fonts"),
            home / ".local/share/fonts",
            home / ".fonts",
        ]
    return [folder for folder in folders if folder.is_dir()]


def _font_files(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no font file and no folder")
    return sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".ttc"))


def _writes(file: str, script: str) -> bool:
    """Whether a font has glyphs of its own for some letters of the script and for digits."""
    try:
        font = load_font(file, 16)
        missing = _ink(font, _UNKNOWN)
        letters = "".join(SCRIPTS[script])
        probes = "08" + letters[::5] + letters[-1] + letters[::7].upper()
        return all(any(ink := _ink(font, probe)) and ink != missing for probe in probes)
    except OSError:  # damaged, or a bitmap font without this size
        return False


def _ink(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    image = Image.new("L", (24, 24))
    ImageDraw.Draw(image).text((4, 2), letter, 255, font)
    return image.tobytes()
