"""A real browser on a real server: come in by the link, make a job with the live preview, switch to Chinese."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright import sync_api

from crony.store import signin
from crony.web.app import create_app
from crony.web.wiring import Web
from tests.helpers.wait import until
from tests.web.conftest import web_settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

OWN_LINK_IN_SIGHT = """() => {
  const own = document.querySelector(".crony-links [aria-current]");
  const right = (element) => element.getBoundingClientRect().right;
  return !own || right(own) <= right(own.parentElement) + 1;
}"""


@pytest.fixture
def served(etcd: Any, keys: Any, tmp_path: Path) -> Iterator[tuple[Web, str]]:
    """A fresh installation behind uvicorn on a free port; (its parts, its address)."""
    parts = Web(web_settings(etcd.endpoint, keys.namespace, tmp_path))
    parts.upgrade()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(parts.settings, web=parts), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started, 20, "the web to listen")
    yield parts, f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(60)


@pytest.fixture
def page(served: tuple[Web, str]) -> Iterator[Any]:
    """A tab of a fresh browser; what its console complains about fails the test."""
    assert CHROMIUM, "no Chromium on PATH: apt-get install chromium (`make test` does it)"
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 900}).new_page()
        tab.set_default_timeout(20_000)
        tab.on(
            "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        yield tab
        browser.close()
    # A form that is refused is answered with 422, which browsers note in their console.
    assert [text for text in complaints if "422" not in text] == []


def test_from_the_link_to_a_running_console(served: tuple[Web, str], page: Any) -> None:
    web, address = served
    page.goto(signin.one_time_link(web.db, address))
    page.fill("#name", "li")
    page.fill("#password", "three quiet green lamps")
    page.fill("#again", "three quiet green lamps")
    page.click("button[type=submit] >> text=Create the account")
    page.wait_for_url("**/jobs")
    page.goto(f"{address}/calendars")
    assert page.locator(".empty-icon .icon").bounding_box()["width"] <= 48, "an empty page is no poster"
    page.goto(f"{address}/jobs")

    page.click("text=New job")
    page.fill("#name", "billing/close-day")
    page.fill("#cron", "61 * * * *")
    page.wait_for_selector("#preview .form-error")
    page.fill("#cron", "30 1 * * 1-5")
    page.fill("#timezone", "Asia/Shanghai")
    page.wait_for_selector("#preview :text('Monday to Friday (Asia/Shanghai)')")
    assert page.locator("#preview li").count() == 10
    assert page.locator("#preview li").first.inner_text().count("+08:00") == 1

    page.click("label[for=action_kind-http]")
    assert page.is_visible("#url") and not page.is_visible("#command")
    page.click("label[for=action_kind-shell]")
    page.fill("#command", "echo 'it")
    page.click("text=Create job")
    page.wait_for_selector("#command-error")
    assert page.input_value("#name") == "billing/close-day" and page.input_value("#command") == "echo 'it"
    page.fill("#command", "echo 'it works'")
    page.click("text=Create job")
    page.wait_for_url(re.compile(r"/jobs/j[0-9a-z]{20}\?done=created"))
    assert page.is_visible("text=The job is saved and published.")

    page.click("nav >> text=Jobs")
    row = page.locator("tr", has_text="billing/close-day")
    assert "at 01:30 on Monday to Friday" in row.inner_text()
    row.locator("[role=switch]").click()
    page.wait_for_selector("[role=switch][aria-checked=false]")
    assert page.is_visible("text=The job is paused") and page.url.endswith("/jobs")
    assert web.catalog.get("billing/close-day").enabled is False

    page.click("summary[aria-label=Display]")
    page.click("button:has-text('中文')")
    page.wait_for_selector("h1:has-text('作业')")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert "周一至周五" in page.locator("tr", has_text="billing/close-day").inner_text()

    page.click("summary[aria-label=显示设置]")
    page.click("button:has-text('深色')")
    page.wait_for_selector("html[data-bs-theme=dark]")

    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/jobs", "/jobs/new", "/runs", "/alerts", "/nodes", "/queues", "/account"):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert page.evaluate(OWN_LINK_IN_SIGHT), path

    page.goto(address + "/jobs")
    page.locator("tr", has_text="billing/close-day").locator("a.main").click()
    page.click("summary[aria-label=更多]")
    page.click("button:has-text('删除')")
    page.click("#confirm button[value=no]")
    assert web.catalog.get("billing/close-day").deleted_at is None
    page.click("summary[aria-label=更多]")
    page.click("button:has-text('删除')")
    page.click("#confirm button[value=yes]")
    page.wait_for_url("**/jobs?done=deleted")
