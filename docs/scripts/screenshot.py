"""Takes docs/pictures/demo.png: the demo's copy synthesis in Chromium.

    python docs/scripts/screenshot.py [options of `vocoder demo`]

Needs the extras demo and dev, and Debian's packages chromium and chromium-driver.
"""

import os
import shutil
import socket
import subprocess
import sys
import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from paths import PICTURES

WIDTH = 1280  # of the page
PATIENCE = 300  # seconds: HiFi-GAN is slow on a CPU


def main() -> None:
    """Start the demo, compare on an example, take the pictures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "vocoder", "demo", "--port", port, *sys.argv[1:]]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        if not server.stdout.readline().startswith("The demo is at"):
            raise SystemExit("the demo did not start")
        shoot(f"http://127.0.0.1:{port}/")
    finally:
        server.terminate()
        server.wait()


def shoot(url: str) -> None:
    """Take the pictures of a running demo."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.add_argument("--headless=new")
    options.add_argument("--hide-scrollbars")
    options.add_argument("--disable-dev-shm-usage")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:

        def resize(height: int) -> None:
            # Of the page: a window's size includes its edges.
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False},
            )

        resize(800)
        driver.get(url)
        wait = WebDriverWait(driver, PATIENCE)

        def press(text: str) -> None:
            def visible(_: object) -> object:
                buttons = driver.find_elements(By.TAG_NAME, "button")
                return next((b for b in buttons if b.text == text and b.is_displayed()), None)

            wait.until(visible).click()

        press("Copy synthesis")
        press("recorded, Russian")
        wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#copy-recording a"))
        press("Compare")
        wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#copy-picture img"))
        time.sleep(2)  # until the waveforms are drawn
        resize(driver.execute_script("return document.documentElement.scrollHeight"))
        time.sleep(1)
        driver.save_screenshot(str(PICTURES / "demo.png"))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
