"""Pages from templates: escaped by default, nothing undefined, one style sheet, and a policy that allows no more."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from serving.explanation import Language
from serving.pages.texts import known, say, teller

HERE: Final = Path(__file__).parent
STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)
OTHER: Final[Mapping[Language, Language]] = {"en": "zh", "zh": "en"}


def render(template: str, language: Language, *, folder: Path = HERE, **values: Any) -> str:  # noqa: ANN401 (what templates show)
    """Fill a template of `folder`, or one of this one, with values and the texts of a language."""
    tell, style = teller(language), style_sheet()
    return (
        _environment(folder)
        .get_template(template)
        .render(
            t=tell,
            known=lambda name: known(name, tell),
            say=lambda said: say(said, language),
            language=language,
            other=OTHER[language],
            style=Markup(style),  # noqa: S704 (a file of this package)
            policy=policy(style.encode()),
            **values,
        )
    )


def policy(style: bytes) -> str:
    """Allow a page its one style sheet, its icon and forms to its own service; no script, nothing from elsewhere."""
    digest = b64encode(hashlib.sha256(style).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'self'"


def headers(page: bytes) -> dict[str, str]:
    """Give the headers that a page is answered with."""
    found = STYLE.search(page)
    return {
        "Content-Security-Policy": f"{policy(found[1] if found else b'')}; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Language",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def style_sheet() -> str:
    """Read the style sheet, as it stands in every page."""
    return HERE.joinpath("style.css").read_text(encoding="utf-8")


@cache
def _environment(folder: Path) -> Environment:
    loader = FileSystemLoader([folder, HERE])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
