"""The page in a real browser: nothing fails, nothing overflows, nothing is fetched, tables sort."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

PHONE_PX, DESK_PX = 400, 1280

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium or chromedriver: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium that keeps its console and its network log."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both paths are given, so that selenium looks for nothing on the network.
    driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(params=[PHONE_PX, DESK_PX])
def page(
    request: pytest.FixtureRequest, browser: webdriver.Chrome, report_root: Path
) -> webdriver.Chrome:
    """The browser with the report open, as wide as a phone and as a desk's screen."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": request.param, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get_log("performance")  # what came before is not this page's
    browser.get((report_root / "report/index.html").as_uri())
    return browser


def test_page_works_at_every_width(page: webdriver.Chrome, report_root: Path) -> None:
    assert page.get_log("browser") == []
    assert page.execute_script(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    pictures = page.find_elements(By.TAG_NAME, "img")
    assert len(pictures) == 13
    assert all(page.execute_script("return arguments[0].naturalWidth", each) for each in pictures)
    requested = [entry["message"] for entry in page.get_log("performance")]
    sent = [text for text in requested if '"Network.requestWillBeSent"' in text]
    outside = [text for text in sent if '"url":"data:' not in text]
    assert len(outside) == 1  # the page itself
    assert (report_root / "report/index.html").as_uri() in outside[0]


def test_a_click_on_a_heading_sorts_its_table(page: webdriver.Chrome) -> None:
    # First places by dataset: the table after that of definitions.
    table = page.find_elements(By.CSS_SELECTOR, "#ranks ~ .scroll table")[1]
    headings = table.find_elements(By.TAG_NAME, "th")
    column = [heading.text for heading in headings].index("range_high")
    for direction in ("ascending", "descending"):
        headings[column].find_element(By.TAG_NAME, "button").click()
        assert headings[column].get_attribute("aria-sort") == direction
        values = read_column(table, column)
        assert values == sorted(values, reverse=direction == "descending")
        assert len(set(values)) > 1
    headings[0].find_element(By.TAG_NAME, "button").click()
    assert headings[column].get_attribute("aria-sort") == "none"


def read_column(table, column: int) -> list[float]:
    cells = table.find_elements(By.CSS_SELECTOR, f"td:nth-child({column + 1})")
    return [float(cell.text) for cell in cells]
