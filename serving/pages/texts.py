"""The catalogues: every text by its name in both languages, and every sentence of a check beside its English words."""

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from features.saying import Saying
from serving.explanation import LANGUAGES, Language

FILE: Final = Path(__file__).with_name("texts.toml")
SENTENCES: Final = Path(__file__).with_name("sentences.toml")
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


@cache
def sentences() -> dict[str, str]:
    """Read the Chinese of every sentence, by its English words."""
    return dict(tomllib.loads(SENTENCES.read_text(encoding="utf-8")))


def say(said: Saying, language: Language) -> str:
    """Say a sentence in a language; what its catalogue lacks, such as the words of an error, stays as it came.

    >>> from features.saying import saying
    >>> say(saying("{column} held {before} and now holds {after}", column="age", before="a", after="b"), "zh")
    'age原为a，现为b'
    """
    if language == "en":
        return str(said)
    filled = {name: say(one, language) if isinstance(one, Saying) else one for name, one in said.filled.items()}
    return sentences().get(said.words, said.words).format_map(filled)


def known(name: str, tell: Tell) -> str:
    """Say a word of the data in a language if the catalogue knows it, else as it came.

    >>> known("stage.active", teller("zh")), known("stage.gone", teller("zh"))
    ('活跃', 'gone')
    """
    return tell(name) if name in catalogue() else name.partition(".")[2]
