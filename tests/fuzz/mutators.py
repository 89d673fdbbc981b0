"""What happens to bytes: damage of any file, and lies that know the format they are told in.

Every function takes the content and a random generator, and returns new content; the same seed gives the same.
"""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

EDGES = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
WORDS = (b"0", b"-1", b"1e9", b"nan", b"inf", b"99999999999", b"1" * 5000, b"", b"\x00", b"0.5", b"4294967295", b"00")

ODD: tuple[Any, ...] = (  # values of JSON
    *(0, 1, -1, 2, 3, 4096, 2**31, 2**63, 10**30, 0.5, 1e308, True, None, "", "x", [], {}, [1], [0, 0], [2**40] * 4),
    *("F64", "I8", "BF16", "BOOL", "F8_E4M3", "restorer", "tagger", "srvgg", [[[]]], [1] * 3000, "a\nb"),
)

Mutator = Callable[[bytes, Random], bytes]


# --- any file


def flip_bits(data: bytes, random: Random) -> bytes:
    """Turn over one bit, or dozens."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 40))):
        if changed:
            changed[_place(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, random: Random) -> bytes:
    """Overwrite some bytes with values at the ends of their range."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 6)):
        if changed:
            changed[_place(changed, random)] = random.choice((0, 1, 127, 128, 254, 255, random.randrange(256)))
    return bytes(changed)


def set_number(data: bytes, random: Random) -> bytes:
    """Overwrite what may be a length, in either byte order."""
    size = random.choice((2, 4, 4, 8))
    if len(data) < size:
        return data
    order = random.choice("<>")
    code = order + {2: "H", 4: "I", 8: "Q"}[size]
    likely = [i for i in range(min(len(data), 4096) - size) if 0 < struct.unpack_from(code, data, i)[0] <= len(data)]
    place = random.choice(likely) if likely and random.random() < 0.7 else random.randrange(len(data) - size + 1)
    old = struct.unpack_from(code, data, place)[0]
    new = random.choice((*EDGES, old + 1, old - 1, 2 * old, len(data), len(data) - place)) % 2 ** (8 * size)
    return data[:place] + struct.pack(code, new) + data[place + size :]


def truncate(data: bytes, random: Random) -> bytes:
    """Cut the end off."""
    return data[: random.choice((random.randrange(len(data) + 1), max(0, len(data) - random.randint(1, 16))))]


def rearrange(data: bytes, random: Random) -> bytes:
    """Remove, repeat, blank or swap a part."""
    if not data:
        return data
    start = random.randrange(len(data))
    part = data[start : start + random.choice((1, 4, 16, 200, 2000))]
    end = start + len(part)
    kind = random.randrange(4)
    if kind == 0:
        return data[:start] + data[end:]
    if kind == 1:
        return data[:end] + part * random.choice((1, 2, 50)) + data[end:]
    if kind == 2:
        return data[:start] + bytes([random.choice((0, 255))]) * len(part) + data[end:]
    return data[:start] + data[end : end + len(part)] + part + data[end + len(part) :]


def append(data: bytes, random: Random) -> bytes:
    """Put something behind the end."""
    return data + random.choice((bytes(1000), random.randbytes(300), data))


DAMAGE: tuple[Mutator, ...] = (flip_bits, set_bytes, set_number, set_number, truncate, rearrange, append)


def splice(data: bytes, other: bytes, random: Random) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: _place(data, random)] + other[random.randrange(len(other) + 1) :]


def _place(data: bytes | bytearray, random: Random) -> int:
    """Somewhere, and more often near the beginning."""
    return random.randrange(min(len(data), random.choice((16, 64, 300, len(data), len(data)))) or 1)


def damaged(data: bytes, random: Random) -> bytes:
    """The content after some kinds of damage."""
    for _ in range(random.choice((1, 1, 2, 4))):
        data = random.choice(DAMAGE)(data, random)
    return data


def change_words(data: bytes, random: Random) -> bytes:
    """Give a text other numbers or words, or move its lines."""
    lines = data.split(b"\n")
    for _ in range(random.choice((1, 1, 3))):
        at = random.randrange(len(lines)) if random.random() < 0.7 else 0
        kind = random.randrange(6)
        numbers = list(re.finditer(rb"-?\d+", lines[at]))
        if kind < 3 and numbers:
            found = random.choice(numbers)
            lines[at] = lines[at][: found.start()] + random.choice(WORDS) + lines[at][found.end() :]
        elif kind == 3:
            lines.insert(at, lines[random.randrange(len(lines))])
        elif kind == 4 and len(lines) > 1:
            del lines[at]
        else:
            words = lines[at].split(b" ")
            words[random.randrange(len(words))] = random.choice(WORDS)
            lines[at] = b" ".join(words)
        lines = lines or [b""]
    return b"\n".join(lines)


# --- pictures


def change_png(data: bytes, random: Random) -> bytes:
    """Lie in a chunk and make its checksum true, or move chunks."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(chunks))
        name, content = chunks[at]
        kind = random.randrange(6)
        if kind == 0:
            header = list(struct.unpack(">IIBBBBB", chunks[0][1][:13].ljust(13, b"\0")))
            field = random.randrange(7)
            header[field] = random.choice((*EDGES[:5], 16, 37, 5000)) if field > 1 else random.choice(EDGES[:-2])
            sizes = [value % (2**32 if i < 2 else 256) for i, value in enumerate(header)]
            chunks[0] = (chunks[0][0], struct.pack(">IIBBBBB", *sizes))
        elif kind == 1:
            chunks.insert(random.randrange(len(chunks) + 1), (name, content))
        elif kind == 2 and len(chunks) > 1:
            del chunks[at]
        elif kind == 3:
            chunks.insert(1, _png_extra(random))
        else:
            chunks[at] = (name, damaged(content, random))
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return data[:8] + b"".join(packed)


def _png_extra(random: Random) -> tuple[bytes, bytes]:
    """A chunk with a profile or a text that unpacks to megabytes, or with odd values."""
    bomb = zlib.compress(bytes(random.choice((1 << 12, 1 << 25))))
    return random.choice(
        (
            (b"iCCP", b"profile\0\0" + bomb),
            (b"zTXt", b"Raw profile type exif\0\0" + bomb),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
            (b"tEXt", b"Comment\0" + random.randbytes(50)),
            (b"eXIf", random.randbytes(60)),
            (b"pHYs", struct.pack(">IIB", random.choice(EDGES) % 2**32, 0, random.randrange(3))),
            (b"tRNS", random.randbytes(random.randrange(9))),
            (b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        )
    )


def change_jpeg(data: bytes, random: Random) -> bytes:
    """Lie in a segment and give it the right length, or move segments."""
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        segments.append((data[place + 1], data[place + 4 : place + 2 + length]))
        place += 2 + length
    rest = data[place:]
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(segments))
        marker, content = segments[at]
        kind = random.randrange(6)
        if kind == 0:
            segments.insert(random.randrange(len(segments) + 1), (marker, content))
        elif kind == 1 and len(segments) > 1:
            del segments[at]
        elif kind == 2:
            segments[at] = (random.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xE1, 0xE2, 0xEE, 0xDD)), content)
        elif kind == 3:
            rest = damaged(rest, random)
        else:
            segments[at] = (marker, damaged(content, random))
    packed = (struct.pack(">BBH", 0xFF, marker, (len(c) + 2) % 65536) + c for marker, c in segments)
    return data[:2] + b"".join(packed) + rest


def change_tiff(data: bytes, random: Random) -> bytes:
    """Lie in an entry of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 16 or data[2:4] not in (b"*\0", b"\0*"):
        return set_number(data, random)
    start = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, start)[0] if start + 2 <= len(data) else 0
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 3))):
        place = start + 2 + 12 * random.randrange(max(1, count))
        if place + 12 > len(changed):
            return damaged(data, random)
        tag, kind, number, value = struct.unpack_from(order + "HHII", changed, place)
        field = random.randrange(4)
        tag = random.choice((256, 257, 258, 259, 262, 273, 277, 279, 284, 322, 34665, 700)) if field == 0 else tag
        kind = random.randrange(1, 20) if field == 1 else kind
        number = random.choice(EDGES) % 2**32 if field == 2 else number
        value = random.choice((*EDGES, value + 1, value * 2)) % 2**32 if field == 3 else value
        struct.pack_into(order + "HHII", changed, place, tag, kind, number, value)
    return bytes(changed)


PICTURES: dict[str, Mutator] = {"png": change_png, "jpg": change_jpeg, "tif": change_tiff, "ppm": change_words}
PICTURES |= {"pgm": change_words, "pbm": change_words}


# --- checkpoints


def change_safetensors(data: bytes, random: Random) -> bytes:
    """Lie in the header: sizes, types, places, names, text, or the config that is text within the text."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for _ in range(random.choice((1, 1, 3))):
        said = header.get("__metadata__", {})
        if said and random.random() < 0.6:
            key = random.choice(list(said))
            said[key] = _changed_text(said[key], random)
        else:
            header = _changed(header, random)
            if not isinstance(header, dict):
                break
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def change_json(data: bytes, random: Random) -> bytes:
    """Another value somewhere in a JSON file."""
    return json.dumps(_changed(json.loads(data), random)).encode()


def _changed_text(text: str, random: Random) -> str:
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        inner = None
    if isinstance(inner, dict | list):
        return json.dumps(_changed(inner, random))
    return random.choice(("", "0", "2", "nan", "\x1b[31m", "a\nb", "../x", "/etc/passwd", "q" * 5000, "[" * 3000, "{}"))


def _changed(value: Any, random: Random) -> Any:
    """A JSON value with one part replaced, removed or renamed."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        kind = random.randrange(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            name = random.choice((f"{key}x", "", "a\nb", "\x1b[2J", "q" * 3000, "body.999999999999.weight"))
            return {(name if k == key else k): v for k, v in value.items()}
        return {k: (_changed(v, random) if k == key else v) for k, v in value.items()}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        return [_changed(v, random) if i == at else v for i, v in enumerate(value)]
    return random.choice(ODD)


def change_zip(data: bytes, random: Random) -> bytes:
    """Lie in an entry of a `torch.save` archive, and pack it again with true checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    packed = zipfile.ZIP_STORED
    for _ in range(random.choice((1, 1, 2))):
        at = next(i for i, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
        kind = random.randrange(8)
        if kind > 4:
            at = random.randrange(len(entries))
        name, content = entries[at]
        if kind == 5:
            entries[at] = (random.choice((name + "x", "../" + name, "constants.pkl", "a/../data.pkl")), content)
        elif kind == 6:
            packed = zipfile.ZIP_DEFLATED
            entries[at] = (name, content + bytes(random.choice((0, 1 << 24))) if "/data/" in name else content)
        elif kind == 7 and len(entries) > 1:
            del entries[at]
            break
        else:
            entries[at] = (name, change_pickle(content, random))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def change_pickle(data: bytes, random: Random) -> bytes:
    """Other numbers, names, or operations in a pickle, or code to be run."""
    kind = random.randrange(5)
    if kind == 0 and b"FloatStorage" in data:
        storage = random.choice((b"HalfStorage ", b"CharStorage ", b"ComplexFloatStorage", b"QInt8Storage", b"X"))
        return data.replace(b"FloatStorage", storage, 1)
    if kind == 1 and b"_rebuild_tensor_v2" in data:
        other = random.choice((b"_rebuild_sparse_tensor", b"_rebuild_parameter", b"_rebuild_qtensor", b"_rebuild_x"))
        return data.replace(b"_rebuild_tensor_v2", other, 1)
    if kind == 2:
        places = [found.start() for found in re.finditer(rb"[KMJ]", data)]
        place = random.choice(places or [0])
        return (
            data[:place]
            + random.choice((b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"K\0", b"N", b"\x88"))
            + (data[place + (2 if data[place : place + 1] == b"K" else 3) :])
        )
    if kind == 3:
        place = _place(data, random)
        return data[:place] + b"cposix\nsystem\n(X\x0e\x00\x00\x00touch executedtR" + data[place:]
    return damaged(data, random)


def change_container(data: bytes, random: Random) -> bytes:
    """The lie that fits the container of a checkpoint."""
    if data.startswith(b"PK"):
        return change_zip(data, random)
    if data.startswith(b"\x80\x02"):
        return change_pickle(data, random)
    if data[8:9] == b"{":
        return change_safetensors(data, random)
    if data.startswith(b"{"):
        return change_json(data, random)
    if data.startswith(b"7767517"):
        return change_words(data, random)
    return damaged(data, random)


def mutated(data: bytes, aware: Mutator | None, others: Sequence[bytes], random: Random) -> bytes:
    """A mutant: a lie that knows the format, damage, or both, or the halves of two files."""
    choice = random.random()
    if choice < 0.1 and others:
        return splice(data, random.choice(others), random)
    if aware and choice < 0.65:
        data = aware(data, random)
        return damaged(data, random) if choice < 0.2 else data
    return damaged(data, random)
