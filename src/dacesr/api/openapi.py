"""What the HTTP API's OpenAPI document says about requests and answers."""

from typing import Any

from dacesr.api.answers import MEANINGS, MIME_TYPES, STATUSES

PICTURE = {"type": "string", "format": "binary", "description": "The picture's file: PNG, JPEG, WebP, TIFF, AVIF, ..."}
NAME = {"type": "string", "description": "What the picture is called; the name of its file unless given."}
FIELDS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "description": "One of GET /api/models; the first unless given."},
    "scale": {"type": "number", "minimum": 0.01, "maximum": 64, "description": "Times the size; the model's own."},
    "width": {"type": "integer", "minimum": 1, "maximum": 10**6, "description": "Of the result; the height follows."},
    "height": {"type": "integer", "minimum": 1, "maximum": 10**6, "description": "Of the result; the width follows."},
    "strength": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "description": "0 faithful to 1 crisp, where there is both.",
    },
    "format": {"type": "string", "description": "png, jpg, webp, tiff, avif, ...; the picture's own unless given."},
    "quality": {"type": "integer", "minimum": 1, "maximum": 100, "description": "Of JPEG, WebP and AVIF."},
    "strip_metadata": {"type": "boolean", "default": False, "description": "Keep only the colour profile."},
}
"""Of a wish; at most one of scale, width and height."""


def upload(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Request of an operation that takes a picture: a form, or the picture as it is with query parameters."""
    form = {"type": "object", "required": ["file"], "properties": {"file": PICTURE, "name": NAME, **fields}}
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema["description"],
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in {"name": NAME, **fields}.items()
    ]
    content = {
        "multipart/form-data": {"schema": form},
        "image/*": {"schema": PICTURE},
        "application/octet-stream": {"schema": PICTURE},
    }
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def errors(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Answers of an operation that may fail with these codes."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        meaning = f"`{code}`: {MEANINGS[code]}"
        known = found.get(STATUSES[code])
        description = f"{known['description']}; {meaning}" if known else meaning
        found[STATUSES[code]] = {"description": description, "content": {"application/json": {"schema": _error()}}}
    return found


def pictures() -> dict[str, Any]:
    """The answer that is a picture."""
    return {
        "description": "The enlarged picture",
        "headers": {
            "Content-Disposition": _text("Its name (RFC 6266)"),
            "X-Dacesr-Model": _text("Which made it"),
            "X-Dacesr-Input-Size": _text("WIDTHxHEIGHT in pixels"),
            "X-Dacesr-Output-Size": _text("WIDTHxHEIGHT in pixels"),
            "X-Dacesr-Seconds": _text("That it took, without waiting"),
            "X-Dacesr-Warnings": _text("JSON: sentences on what could not be kept"),
        },
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MIME_TYPES.values()},
    }


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _error() -> dict[str, Any]:
    code = {"type": "string", "enum": sorted(STATUSES)}
    inner = {
        "type": "object",
        "required": ["code", "message"],
        "properties": {"code": code, "message": {"type": "string"}},
    }
    return {"type": "object", "required": ["error"], "properties": {"error": inner}}
