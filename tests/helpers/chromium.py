"""Headless Chromium, driven over a pipe: what a page does when it is opened, and how it looks."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT = 60.0  # seconds for an answer: a busy machine is slow
needed = pytest.mark.skipif(PROGRAM is None, reason="needs chromium, which is not installed here")


class Page:
    """One tab. ``dialogs`` and ``requests`` are what the page asked for since it was opened."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._read, self._number, self._session = to, back, b"", 0, ""
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        number = self._number
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + WAIT
        while b"\0" not in self._read:
            assert select([self._back], [], [], max(0, end - time.monotonic()))[0], "chromium says nothing"
            some = os.read(self._back, 1 << 20)
            assert some, "chromium has ended"
            self._read += some
        one, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Page.javascriptDialogOpening":
                self.dialogs.append(parameters["message"])
                accept = {"id": -1, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                os.write(self._to, json.dumps({**accept, "sessionId": self._session}).encode() + b"\0")
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])

    def open(self, file: Path) -> None:
        """Open a file, and wait until it is drawn."""
        self.dialogs, self.requests, self.errors = [], [], []
        self.call("Page.navigate", url=file.resolve().as_uri())
        end = time.monotonic() + WAIT
        while self.ask("document.readyState") != "complete" or self.ask("location.href") == "about:blank":
            assert time.monotonic() < end, "the page is not ready"
            time.sleep(0.05)
        self.ask("new Promise(done => setTimeout(done, 300))")

    def ask(self, script: str) -> Any:
        """What a script in the page comes to."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def resize(self, width: int, height: int = 900) -> None:
        """The window's size in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        self.ask("new Promise(done => setTimeout(done, 300))")

    def theme(self, name: str) -> None:
        """``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.ask("new Promise(done => setTimeout(done, 200))")

    def screenshot(self, file: Path) -> None:
        """The whole page as a picture."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def print(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a browser of its own, whose profile is in ``folder``."""
    assert PROGRAM is not None
    theirs, to = os.pipe()
    back, their_answers = os.pipe()

    def pipes() -> None:  # 3 and 4 are what the browser reads and writes
        for high, low in [(os.dup(theirs), 3), (os.dup(their_answers), 4)]:
            os.dup2(high, low)

    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
    process = subprocess.Popen(
        [PROGRAM, *arguments, f"--user-data-dir={folder}", "--disable-background-networking"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=pipes,
    )  # fmt: skip
    try:
        yield Page(to, back)
    finally:
        process.kill()
        process.wait()
        for end in (theirs, to, back, their_answers):
            os.close(end)
