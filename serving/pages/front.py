"""The first page: what `holdfast monitor report` wrote last, as it stands, with its age and the look-up put in.

Nothing is computed for whoever asks. A page is read anew each time, so that the next one written is the next one shown.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from features.home import Home
from serving.explanation import Language
from serving.pages.rendering import render
from serving.pages.texts import teller

MARK: Final = "<!-- holdfast: served -->"  # where the service puts in what mail has no use for
REPORT: Final = r"drift-\d{4}-\d{2}-\d{2}\.html"  # the full reports that the service shows
LINKED: Final = re.compile(rf'<code class="report">({REPORT})</code>')  # mail has no way to them
STALE: Final = timedelta(days=8)  # the view is a weekly one
MINUTE: Final = 60
UNITS: Final = (("days", 86_400), ("hours", 3600), ("minutes", MINUTE))


def page_path(home: Home, language: Language) -> Path:
    """Say where the page of a language is."""
    return home.reports / f"overview-{language}.html"


def front_page(home: Home, language: Language, *, now: datetime) -> bytes:
    """Give the page, or one that says which command writes it."""
    path = page_path(home, language)
    try:
        text, written = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except FileNotFoundError:
        return render("empty.html", language).encode()
    text = LINKED.sub(r'<a href="reports/\1">\1</a>', text)
    passed = now - datetime.fromtimestamp(written, UTC)
    served = render("served.html", language, age=age_of(passed, language), stale=passed > STALE)
    return text.replace(MARK, served, 1).encode()


def age_of(passed: timedelta, language: Language) -> str:
    """Say how long ago something was.

    >>> age_of(timedelta(minutes=130), "en"), age_of(timedelta(seconds=3), "zh")
    ('2 hours ago', '不到一分钟前')
    """
    tell, seconds = teller(language), passed.total_seconds()
    if seconds < MINUTE:
        return tell("served.moments")
    name, length = next((name, length) for name, length in UNITS if seconds >= 2 * length or length == MINUTE)
    return tell(f"served.{name}", n=int(seconds // length))
