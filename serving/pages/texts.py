"""The catalogue of texts: each by its name, in English and in Chinese, from one file that translators can read."""

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from serving.explanation import LANGUAGES, Language

FILE: Final = Path(__file__).with_name("texts.toml")
Tell = Callable[..., str]


@cache
def catalogue() -> dict[str, dict[Language, str]]:
    """Read every text by `section.name` and language.

    >>> catalogue()["stage.active"]
    {'en': 'active', 'zh': '活跃'}
    """
    sections = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {
        f"{section}.{name}": dict(zip(LANGUAGES, texts, strict=True))
        for section, named in sections.items()
        for name, texts in named.items()
    }


def teller(language: Language) -> Tell:
    """Give what says a text in a language.

    >>> teller("zh")("served.hours", n=3)
    '3小时前'
    """
    texts = catalogue()

    def tell(name: str, /, **filled: object) -> str:
        return texts[name][language].format(**filled)

    return tell


def known(name: str, tell: Tell) -> str:
    """Say a word of the data in a language if the catalogue knows it, else as it came.

    >>> known("stage.active", teller("zh")), known("stage.gone", teller("zh"))
    ('活跃', 'gone')
    """
    return tell(name) if name in catalogue() else name.partition(".")[2]
