"""What the pages share: their templates, and data inside a script element."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tinyworld.report import words


def template(name: str) -> Any:
    """A template of this package, everything but Markup escaped."""
    environment = Environment(
        loader=PackageLoader("tinyworld.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": words.fixed,
        "size": words.size,
        "duration": words.duration,
        "moment": words.moment,
        "whole": words.whole,
    }
    return environment.get_template(name)


def embedded_json(value: list[dict[str, Any]]) -> Markup:
    """JSON that may stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
