"""The shapes of `report.scatter` as a PNG picture, drawn by Pillow in its own font."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from onnxprune.errors import MissingExtraError
from onnxprune.report.scatter import HEIGHT, WIDTH, Circle, Line, Shape

# Pixels per unit of the picture; drawn at twice that and made smaller, so that edges are smooth.
_SCALE, _SMOOTH = 2, 2
_FONT_SIZE = 12
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def check_pillow() -> None:
    """Raises MissingExtraError without Pillow."""
    if find_spec("PIL") is None:
        raise MissingExtraError("pillow", "data")


def as_png(shapes: Sequence[Shape], colours: Mapping[str, str]) -> bytes:
    """The picture.

    Args:
        shapes: from back to front.
        colours: per class of a shape, like `part0`, `axis`; "" for text that has none.

    Raises MissingExtraError without Pillow.
    """
    check_pillow()
    from PIL import Image, ImageDraw, ImageFont

    unit = _SCALE * _SMOOTH
    image = Image.new("RGB", (WIDTH * unit, HEIGHT * unit), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE * unit)
    for shape in shapes:
        colour = colours[shape.kind.split()[-1] if shape.kind else ""]
        if isinstance(shape, Line):
            width = (2 if "joined" in shape.kind else 1) * unit
            draw.line([(x * unit, y * unit) for x, y in shape.points], fill=colour, width=width, joint="curve")
        elif isinstance(shape, Circle):
            draw.circle((shape.x * unit, shape.y * unit), shape.radius * unit, fill=colour)
        elif not shape.upwards:
            place = (shape.x * unit, shape.y * unit)
            draw.text(place, shape.words, fill=colour, font=font, anchor=_ANCHORS[shape.anchor])
        else:
            strip = Image.new("L", (round(draw.textlength(shape.words, font)), 2 * _FONT_SIZE * unit))
            ImageDraw.Draw(strip).text((0, _FONT_SIZE * unit), shape.words, fill=255, font=font, anchor="ls")
            corner = round(shape.x - _FONT_SIZE) * unit, round(shape.y * unit - strip.width / 2)
            image.paste(colour, corner, strip.rotate(90, expand=True))
    found = io.BytesIO()
    image.resize((WIDTH * _SCALE, HEIGHT * _SCALE), Image.Resampling.LANCZOS).save(found, "png")
    return found.getvalue()
