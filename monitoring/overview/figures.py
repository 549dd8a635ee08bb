"""How figures are written for people: money without cents where cents say nothing, dates as a language has them."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from features.programme import Programme
from monitoring.kpis import Unit
from serving.explanation import Language
from serving.pages.texts import Tell
from training.metrics import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE: Final = 100  # units of the currency: from here on decimals say nothing
MINUS: Final = "−"
SEEN: Final = 0.0005  # of a change: less is written as none


@dataclass(frozen=True)
class Figures:
    """Write figures in a programme's currency and a reader's language."""

    programme: Programme
    language: Language
    tell: Tell

    def money(self, minor: float | None, *, sign: bool = False) -> str:
        """Write an amount.

        >>> from serving.pages.texts import teller
        >>> figures = Figures(Programme(), "en", teller("en"))
        >>> figures.money(-1234567), figures.money(1234, sign=True), figures.money(None)
        ('−12,346 USD', '+12.34 USD', 'not known')
        """
        if minor is None:
            return self.tell("page.unknown")
        return f"{self.amount(minor, sign=sign)} {self.programme.currency}"

    def amount(self, minor: float, *, sign: bool = False) -> str:
        """Write an amount whose currency is said elsewhere."""
        major = minor / 10**self.programme.currency_digits
        digits = 0 if abs(major) >= WHOLE or not major else self.programme.currency_digits
        text = f"{major:{'+' if sign else ''},.{digits}f}"
        return text.replace("-", MINUS)

    def money_range(self, found: Estimate | None, *, sign: bool = False) -> str:
        """Write an estimate of money with its interval."""
        if found is None:
            return self.tell("page.unknown")
        lower, upper = (self.amount(one, sign=sign) for one in (found.lower, found.upper))
        return self.tell("page.interval", value=self.money(found.value, sign=sign), lower=lower, upper=upper)

    def share_range(self, found: Estimate | None) -> str:
        """Write a ratio with its interval, signed, in per cent."""
        if found is None:
            return self.tell("page.unknown")
        value, lower, upper = (self.percent(one, sign=True) for one in (found.value, found.lower, found.upper))
        return self.tell("page.interval", value=value, lower=lower, upper=upper)

    def count_range(self, found: Estimate) -> str:
        """Write a number of members with its interval."""
        value, lower, upper = (f"{one:,.0f}" for one in (found.value, found.lower, found.upper))
        return self.tell("page.interval", value=value, lower=lower, upper=upper)

    def plain_range(self, found: Estimate) -> str:
        """Write a number of three decimals with its interval."""
        value, lower, upper = (f"{one:.3f}" for one in (found.value, found.lower, found.upper))
        return self.tell("page.interval", value=value, lower=lower, upper=upper)

    def percent(self, share: float, *, sign: bool = False, digits: int = 0) -> str:
        """Write a share in per cent."""
        return f"{100 * share:{'+' if sign else ''},.{digits}f} %".replace("-", MINUS)

    def count(self, members: int | None) -> str:
        """Write a number of members; None is fewer than may be told."""
        return self.tell("page.few") if members is None else f"{members:,}"

    def number(self, value: float | None) -> str:
        """Write a number of people, contacts or rows."""
        return self.tell("page.unknown") if value is None else f"{value:,.0f}"

    def kpi(self, value: float | None, unit: Unit) -> str:
        """Write a figure of the tree."""
        if value is None:
            return self.tell("page.unknown")
        writers: dict[Unit, Callable[[float], str]] = {
            "money": self.money,
            "share": lambda share: self.percent(share, digits=1),
            "number": self.number,
            "decimal": lambda number: f"{number:.2f}",
        }
        return writers[unit](value)

    def change(self, change: float | None, unit: Unit) -> str:
        """Write a change against the period before, in per cent, or in points of a share."""
        if change is None:
            return ""
        if unit == "share":
            return f"{100 * change:+.1f} {self.tell('kpi.points')}".replace("-", MINUS)
        return self.percent(change, sign=True, digits=1)

    def direction(self, change: float | None) -> str:
        """Name the class of a change that is large enough to be seen."""
        return "" if change is None or abs(change) < SEEN else "up" if change > 0 else "down"

    def day(self, moment: datetime) -> str:
        """Write a day of the programme's calendar.

        >>> from datetime import UTC
        >>> from serving.pages.texts import teller
        >>> Figures(Programme(), "zh", teller("zh")).day(datetime(2018, 1, 2, tzinfo=UTC))
        '2018年1月2日'
        """
        local = moment.astimezone(self.programme.zone)
        if self.language == "zh":
            return f"{local.year}年{local.month}月{local.day}日"
        return f"{local.day} {local:%b %Y}"
