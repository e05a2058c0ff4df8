"""Long lines of Python broken as ruff breaks them: inside of the last brackets."""

from __future__ import annotations

from collections.abc import Iterator

_WIDTH = 120
_PAIRS = {")": "(", "]": "["}


def wrapped(line: str, indent: int) -> Iterator[str]:
    """The line, on several where it is too long."""
    space = " " * indent
    if len(space + line) <= _WIDTH:
        yield space + line
        return
    split = _brackets(line)
    if split is None:
        yield space + line
        return
    head, content, tail = split
    yield space + head
    inner = " " * (indent + 4)
    if len(inner + content) <= _WIDTH and not head.startswith("def "):
        yield inner + content
    else:
        for part in _parts(content):
            yield from wrapped(f"{part},", indent + 4)
    yield space + tail


def _brackets(line: str) -> tuple[str, str, str] | None:
    """Head with the opening bracket, content, tail with the closing one, of the last outermost pair with content."""
    depth, end = 0, -1
    for place in range(len(line) - 1, -1, -1):
        letter = line[place]
        if letter in _PAIRS:
            depth += 1
            end = place if depth == 1 else end
        elif letter in _PAIRS.values():
            depth -= 1
            if depth == 0 and end - place > 1:
                return line[: place + 1], line[place + 1 : end], line[end:]
    return None


def _parts(content: str) -> list[str]:
    """The entries between outermost commas."""
    depth, parts, start = 0, [], 0
    for place, letter in enumerate(content):
        depth += letter in "(["
        depth -= letter in ")]"
        if letter == "," and depth == 0:
            parts.append(content[start:place].strip())
            start = place + 1
    parts.append(content[start:].strip())
    return [part for part in parts if part]
