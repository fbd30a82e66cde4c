"""A real browser for tests: Chromium or Chrome, driven over a pipe, with nothing but the standard library.

The browser reads commands of its DevTools protocol from file descriptor 3 and answers on 4 (the switch
`--remote-debugging-pipe`), each message JSON that ends with a zero byte. So there is no driver to download
and no port to open.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLE = "COMA_BROWSER"
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
    "--mute-audio",
    "--no-first-run",
    "--remote-debugging-pipe",
)
"""The settings of blink are a mouse: charts show their buttons always where there is none."""
PATIENCE = 60.0
"""Seconds that anything asked of the browser may take: it shares its machine."""
KEYS = {" ": 32, "a": 65, "Tab": 9, "Enter": 13, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36}
KEYS |= {"b": 66, "1": 49, "2": 50, "3": 51, "4": 52}
KEYS |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
"""Name of a key -> the number that browsers know it by."""


def find_browser() -> str | None:
    """The browser that the environment names, or the first on PATH; None where there is none."""
    named = os.environ.get(VARIABLE)
    if named and not (found := shutil.which(named)):
        raise FileNotFoundError(f"{VARIABLE} names {named}, which is no program")
    return found if named else next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser(program: str, folder: Path) -> Iterator[Browser]:
    """Starts a browser with a new profile in `folder`, and ends it."""
    (child_reads, we_write), (we_read, child_writes) = os.pipe(), os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (child_reads, child_writes)]
    for end in (child_reads, child_writes):
        os.close(end)
    log = str(folder / "browser.log")
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, output, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for output in (1, 2)
    ]
    actions += [(os.POSIX_SPAWN_DUP2, end, number) for end, number in zip(high, (3, 4), strict=True)]
    words = [program, *SWITCHES, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = os.posix_spawn(program, words, os.environ, file_actions=actions, setpgroup=0)
    for end in high:
        os.close(end)
    try:
        yield Browser(we_write, we_read)
    finally:
        os.close(we_write)  # the browser ends when its commands do
        _await_end(process)
        os.close(we_read)


def _await_end(process: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if os.waitpid(process, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)


class Browser:
    """The pipe: commands out, answers and events in."""

    def __init__(self, commands: int, answers: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._commands, self._answers, self._rest, self._number = commands, answers, b"", 0

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Runs one command and returns its result; keeps the events that come before it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], PATIENCE)[0]:
                raise TimeoutError("the browser does not answer")
            if not (part := os.read(self._answers, 1 << 20)):
                raise EOFError("the browser has ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer

    def page(
        self, address: str, *, width: int = 1200, height: int = 900, scripts: bool = True, **media: str
    ) -> Page:
        """A new page of a size, with media features such as `prefers_color_scheme="dark"`; with `scripts`
        false, as in a browser that runs none.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        page.call("Emulation.setEmulatedMedia", features=features)
        page.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        page.call("Page.navigate", url=address)
        page.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(address)})")
        return page

    def save_into(self, folder: Path) -> None:
        """Lets downloads go into a folder."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))


class Page:
    """One open page."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to this page."""
        return self._browser.call(method, self._session, **params)

    def value(self, script: str) -> Any:
        """What an expression has as its value, awaited where it is a promise."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, script: str) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(script):
            if time.monotonic() > deadline:
                raise TimeoutError(script)
            time.sleep(0.02)

    def click(self, element: str, x: float = 0.5, y: float = 0.5) -> None:
        """Presses the mouse on an element, at shares of its width and height, scrolled into view."""
        self.value(f"{element}.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}})")
        box = self.value(f"{element}.getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def press(self, key: str) -> None:
        """Strikes a key."""
        told = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        text = {" ": " ", "Enter": "\r"}.get(key)
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def picture(self, path: Path) -> None:
        """Writes what the whole page looks like as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1})
        path.write_bytes(base64.b64decode(shot["data"]))

    def _told(self, *methods: str) -> list[dict[str, Any]]:
        """The page's events of some kinds so far."""
        self.value("0")
        return [
            event["params"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] in methods
        ]

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Everything that the console was told: by the page, by its errors, by the browser."""
        return self._told("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

    @property
    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        return [event["request"]["url"] for event in self._told("Network.requestWillBeSent")]

    def close(self) -> None:
        """Closes the page."""
        self._browser.call("Target.closeTarget", targetId=self._target)
