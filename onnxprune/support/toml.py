"""Plain data as TOML, for recipes: the standard library reads it and cannot write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(data: Mapping[str, Any]) -> str:
    """Texts, numbers, booleans, lists and tables; lists of tables become [[arrays]]."""
    return "\n".join(_lines(data, "")).strip() + "\n"


def _lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    arrays = {key: value for key, value in table.items() if _is_array(value)}
    for key, value in table.items():
        if key not in arrays:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in arrays.items():
        inner = f"{path}{_key(key)}"
        for each in value:
            yield from ("", f"[[{inner}]]", *_lines(each, f"{inner}."))


def _is_array(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # the basic strings and numbers of TOML are those of JSON


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
