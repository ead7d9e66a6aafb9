"""`rmft report` in a browser. Needs playwright (extra `browser`) and Chromium (`apt-get install chromium`)."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import reports
from rmft_jax.report import write_report
from rmft_jax.report.watch import watch

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# A browser takes its time where others work too.
PATIENCE = 60_000


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; try apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox of its own: containers seldom allow one, and the pages are ours.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    pytest.importorskip("vl_convert")
    folder = tmp_path_factory.mktemp("pages")
    evaluation = reports.evaluation()
    reports.run_directory(folder / "run", evaluation)
    reports.run_directory(folder / "other", reports.evaluation(num_arms=3))
    reports.sweep_directory(folder / "sweep")
    write_report([folder / "run", folder / "other"], folder / "runs.html")
    write_report([folder / "sweep"], folder / "sweep.html")
    write_report([folder / name for name in ("run", "other", "sweep")], folder / "all.html")
    return folder


@pytest.fixture
def seen() -> list[str]:
    """What pages have complained of."""
    return []


@pytest.fixture
def visit(browser, seen):
    """Opens a page at some width; in the end it must have complained of nothing, and asked for nothing but itself."""
    wanted: list[str] = []
    opened = []

    def go(address: Path | str, size: Any = None) -> Any:
        url = address.as_uri() if isinstance(address, Path) else address
        page = browser.new_page(viewport=size or WIDE)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: wanted.append(request.url))
        page.goto(url)
        page.wait_for_function("[...document.querySelectorAll('.chart')].every((one) => one.querySelector('svg, p'))")
        opened.append((page, url))
        return page

    yield go
    assert seen == []
    assert [one for one in wanted if not any(one.startswith(url) for _, url in opened)] == []
    for page, _ in opened:
        page.close()


def lines(page: Any, place: str) -> list[str]:
    return page.evaluate(f"document.getElementById('{place}').lines.map((line) => line.label)")


def drawn(page: Any, place: str) -> int:
    """Lines that are in the picture."""
    return page.locator(f"#{place} .mark-line path").count()


def scale(page: Any, place: str, axis: str = "y") -> dict[str, Any]:
    scale = f"document.getElementById('{place}').drawn.view.scale('{axis}')"
    return page.evaluate(f"({{type: {scale}.type, domain: {scale}.domain()}})")


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.textContent || document.activeElement.getAttribute('aria-label')")


def test_agents_are_switched_off_and_on_by_keyboard(visit, pages):
    page = visit(pages / "runs.html")
    assert set(lines(page, "regret-0-curves")) == set(lines(page, "regret-1-curves"))
    before = drawn(page, "regret-0-curves")
    assert before == len(lines(page, "regret-0-curves")) == 6  # The best arm is the level 0.
    page.get_by_label("UCB1", exact=True).first.focus()
    page.keyboard.press("Space")
    for place in ("regret-0-curves", "regret-1-curves", "difference-0-curves", "suff_fail-1-curves"):
        assert "UCB1" not in lines(page, place)
    page.wait_for_function("document.querySelectorAll('#regret-0-curves .mark-line path').length === 5")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelectorAll('#regret-0-curves .mark-line path').length === 6")
    page.get_by_label("tables: only agents that are on").press("Space")
    assert page.locator("#table tbody tr").filter(visible=True).count() == 2 * 6
    page.get_by_role("button", name="none").press("Enter")
    assert page.locator("#table tbody tr").filter(visible=True).count() == 0
    assert lines(page, "regret-0-curves") == []
    assert "Nothing to show here." in page.locator("#regret-0-curves").inner_text()
    page.get_by_role("button", name="all", exact=True).press("Enter")
    assert len(lines(page, "regret-0-curves")) == 7


def test_axes_and_references_change(visit, pages):
    page = visit(pages / "runs.html")
    assert scale(page, "regret-0-curves")["type"] == "linear"
    assert scale(page, "regret-0-curves")["domain"] == scale(page, "regret-1-curves")["domain"]
    page.get_by_label("logarithmic axes of regret").press("Space")
    page.wait_for_function("document.querySelector('#regret-1-curves').drawn.view.scale('y').type === 'log'")
    assert scale(page, "regret-0-curves", "x")["type"] == "log"
    assert scale(page, "difference-0-curves")["type"] == "linear"
    page.get_by_label("one vertical axis for all panels").press("Space")
    page.wait_for_timeout(300)
    assert scale(page, "regret-0-curves")["domain"] != scale(page, "regret-1-curves")["domain"]
    assert "Thompson" not in lines(page, "difference-0-curves")
    page.get_by_label("reference of differences").select_option("rmft")
    assert "RMFT Transformer" not in lines(page, "difference-0-curves")
    ahead = page.evaluate("document.getElementById('difference-0-curves').lines.find((l) => l.label === 'UCB1')")
    _, data = reports.read((pages / "runs.html").read_text())
    mean, low, high = data["sources"][0]["settings"][0]["difference"]["curves"]["rmft|ucb1"]
    assert ahead["mean"] == [-value for value in mean]
    assert ahead["low"] == [-value for value in high]
    assert ahead["high"] == [-value for value in low]


def test_curves_are_read_by_arrow_keys(visit, pages):
    page = visit(pages / "runs.html")
    page.locator("#regret-0-curves .chart").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    told = page.locator("#regret-0-curves .reading li").all_inner_texts()
    assert told[0] == "round 300"
    assert len(told) == 7
    row = next(
        row for row in reports.rows(reports.read((pages / "runs.html").read_text())[0], "table") if "UCB1" in row
    )
    ours = next(text for text in told if text.startswith("UCB1: "))
    assert ours.removeprefix("UCB1: ").split()[0] == row[1].split()[0]
    assert page.locator("#regret-0-curves .mark").is_visible()


def test_tables_are_sorted_by_keyboard(visit, pages):
    page = visit(pages / "runs.html")
    table = page.locator("#table table").first
    head = table.locator("thead th").nth(3)
    numbers = "[...document.querySelector('#table table').tBodies[0].rows].map((row) => row.cells[3].dataset.value)"
    for direction in ("ascending", "descending"):
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == direction
        values = [float(value) for value in page.evaluate(numbers) if value != "nan"]
        assert values == sorted(values, reverse=direction == "descending")
        assert page.evaluate(numbers)[-1] == "nan"  # The best arm has no exponent.
    assert table.locator("thead th").nth(1).get_attribute("aria-sort") == "none"


def test_a_cell_of_the_map_opens_its_curves(visit, pages):
    page = visit(pages / "sweep.html")
    _, data = reports.read((pages / "sweep.html").read_text())
    settings = data["sources"][0]["settings"]
    # One of its seeds failed, which its curves and its cell say.
    assert "T = 200, K = 6 (1 of 2 seeds failed)" in page.locator("#regret-0-curves figcaption").inner_text()
    shown = page.locator(".map button[aria-pressed=true]")
    assert shown.inner_text().endswith("*")
    assert shown.get_attribute("aria-label").endswith(" (1 of 2 seeds failed)")
    assert page.locator(".map button").filter(has_text="*").count() == 1
    assert "* mean over the seeds that finished" in page.locator(".map caption").inner_text()
    page.locator(".map button[aria-pressed=true]").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert focused(page) == "sweep: T = 50, K = 3"
    curve = page.evaluate("document.getElementById('regret-0-curves').lines.find((l) => l.label === 'UCB1')")
    chosen = next(setting for setting in settings if setting["title"] == "T = 50, K = 3")
    assert curve["mean"] == chosen["regret"]["curves"]["ucb1"][0]
    assert curve["at"] == chosen["regret"]["at"]
    for place in ("difference-0-curves", "training-0-curves", "suff_fail-0-curves", "arms-0-shares"):
        assert page.locator(f"#{place} figcaption").inner_text().startswith("sweep: T = 50, K = 3")
    assert page.locator(".map button[aria-pressed=true]").get_attribute("aria-label").startswith("T = 50, K = 3: ")
    # The other way round, of another agent, and minus a third.
    page.get_by_label("down", exact=True).select_option("0")
    assert page.locator(".map thead th").all_inner_texts()[1:] == ["2", "3", "6"]
    assert page.locator(".map tbody th").all_inner_texts() == ["25", "50", "200"]
    page.get_by_label("agent", exact=True).first.select_option("ucb1")
    page.get_by_label("minus", exact=True).select_option("rmft")
    mean = chosen["difference"]["curves"]["rmft|ucb1"][0][-1]
    shown = page.locator(".map button[aria-pressed=true]").inner_text()
    assert float(shown) == pytest.approx(-mean, abs=0.05)


def test_every_control_is_reached_by_tab_and_shows_it(visit, pages):
    page = visit(pages / "sweep.html")
    page.locator("h1").click()
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        tag, label, outline = page.evaluate(
            "(() => { const one = document.activeElement; return [one.tagName, one.textContent || one.ariaLabel, "
            "getComputedStyle(one).outlineStyle]; })()"
        )
        if tag != "BODY":
            assert outline != "none", (tag, label)
        reached.add(tag)
        if tag == "BODY":
            break
    assert {"A", "SUMMARY", "SELECT", "BUTTON", "INPUT", "DIV"} <= reached


@pytest.mark.parametrize("name", ["runs", "sweep", "all"])
def test_a_page_fits_a_phone_and_a_desk(visit, pages, name):
    for size in (NARROW, WIDE):
        page = visit(pages / f"{name}.html", size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page.screenshot(path=pages / f"{name}-{size['width']}.png", full_page=True)
    if name == "all":
        tops = [page.locator(f"#regret-{number}-curves").bounding_box() for number in range(3)]
        assert tops[0]["y"] == tops[1]["y"]
        assert tops[0]["x"] < tops[1]["x"]


def test_on_paper_the_controls_are_a_legend(visit, pages):
    page = visit(pages / "runs.html")
    page.get_by_label("UCB1", exact=True).first.press("Space")
    page.emulate_media(media="print")
    legend = page.locator("#controls label").filter(visible=True)
    assert set(legend.all_inner_texts()) == set(lines(page, "regret-0-curves"))
    assert page.locator("#controls input").filter(visible=True).count() == 0
    assert page.locator("#table tbody tr").last.is_visible()


def test_a_page_follows_a_run(visit, seen, tmp_path):
    run = reports.run_directory(tmp_path / "run")
    with watch([run.path]) as served:
        page = visit(served.url)
        page.wait_for_function("document.getElementById('following').textContent.includes('follows its files')")
        assert page.locator("#regret-0-curves").count() == 0
        longer = reports.made_metrics().isel(iteration=slice(20))
        run.write_dataset("metrics.nc", longer)
        page.wait_for_function(
            "document.getElementById('training-0-curves').lines.some((line) => line.at.length === 20)"
        )
        run.write_dataset("evaluation.nc", reports.evaluation())
        page.wait_for_function("document.querySelectorAll('#regret-0-curves .mark-line path').length === 6")
        page.get_by_label("UCB1", exact=True).first.press("Space")
        run.write_summary({"device": "newer", "evaluation": {}})
        page.wait_for_function("document.getElementById('settings').textContent.includes('newer')")
        assert "UCB1" not in lines(page, "regret-0-curves")  # What was switched off stays off.
        assert page.locator("#missing").count() == 0
    page.wait_for_function("document.getElementById('following').textContent.includes('does not answer')")
    page.close()
    assert all("ERR_CONNECTION_REFUSED" in line for line in seen)
    seen.clear()
