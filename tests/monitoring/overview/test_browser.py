"""The page in a real browser: it loads, complains of nothing, asks nobody else, and shows the known figures."""

import os

import httpx
import pytest


@pytest.fixture
def seen(browser, address):
    browser.errors.clear()
    browser.asked.clear()
    browser.look(1440, 900)
    browser.open(f"{address}/?language=en")
    return browser


def test_it_shows_the_known_figures_without_an_error_or_a_request_to_anybody_else(seen, address):
    assert seen.run("document.getElementById('headline').innerText") == "Offers earned 540 USD after all costs"
    cards = seen.run("document.querySelector('.cards').innerText")
    assert "500 USD" in cards  # half of the members bought for 10 USD in the last week
    assert "−50.0 %" in cards
    assert seen.errors == []
    assert {one for one in seen.asked if not one.startswith((address, "data:"))} == set()
    assert "ago" in seen.run("document.querySelector('.served').innerText")


def test_no_width_scrolls_sideways_in_either_language_and_light(seen, address):
    pictures = os.environ.get("HOLDFAST_PICTURES")
    for language in ("en", "zh"):
        for width, height in ((1440, 900), (390, 844)):
            for dark in (False, True):
                seen.look(width, height, dark=dark)
                seen.open(f"{address}/?language={language}")
                wide, there = (seen.run(f"document.documentElement.{name}") for name in ("scrollWidth", "clientWidth"))
                assert (wide, there) == (width, width)  # the one is what there is, the other what fits
                if pictures:
                    name = f"{language}-{width}-{'dark' if dark else 'light'}.png"
                    with open(f"{pictures}/{name}", "wb") as file:  # noqa: PTH123 (outside the repository)
                        file.write(seen.picture())
    assert seen.errors == []


def test_dark_is_dark_and_light_is_light(seen):
    shade = "parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    light = seen.run(shade)
    seen.look(1440, 900, dark=True)
    dark = seen.run(shade)
    assert dark < 60
    assert light > 200


def test_a_member_is_looked_up_by_a_form_that_keeps_the_id_out_of_every_address(seen, address):
    body = {"members": ["m1"], "campaign_id": "spring"}
    made = httpx.post(f"{address}/v1/decisions", json=body).raise_for_status().json()["decisions"][0]
    seen.submit("m1")
    text = seen.run("document.body.innerText")
    assert made["decision_id"] in text
    assert seen.run("document.querySelectorAll('ol.why li').length") >= 1
    assert seen.errors == []
    assert [one for one in seen.asked if "m1" in one] == []
    seen.submit("nobody at all")
    assert "No decision on this id is in the log." in seen.run("document.body.innerText")


def test_the_keyboard_reaches_everything_and_changes_the_view(seen):
    seen.press("Tab", 9)
    assert seen.run("document.activeElement.className") == "skip"
    seen.run("document.getElementById('view-week').focus()")
    seen.press("ArrowRight", 39)
    shown = "[...document.querySelectorAll('.tab')].map(one => getComputedStyle(one).display)"
    assert seen.run("document.activeElement.id") == "view-month"
    assert seen.run(shown) == ["none", "block", "none"][: len(seen.run(shown))]


def test_it_speaks_the_language_that_the_browser_asks_for(address):
    page = httpx.get(address, headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert "扣除全部成本后，优惠净赚540 USD" in page.text
    assert httpx.get(address, headers={"Accept-Language": "fr"}).text.count('<html lang="en">') == 1
