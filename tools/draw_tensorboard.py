"""Photograph lesson 13's logs of all four tracks in TensorBoard: docs/images/tensorboard.png.

Needs Chromium and the extra `test`. A folder of logs may be given; else the lesson is run first.
"""

import shutil
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from playwright.sync_api import sync_playwright
from tensorboard import program

from quartet.run import run
from utils.tracks import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUERY = urllib.parse.urlencode({"smoothing": 0, "tagFilter": r"^(epoch_)?loss$|hidden1\.bias"})
target = ROOT / "docs" / "images" / "tensorboard.png"
logs = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
if not any(logs.iterdir()):
    run(["13"], parameters={"LOGS": str(logs)}, out=logs / "runs")

server = program.TensorBoard()
local = ["--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
server.configure(argv=["", "--logdir", str(logs / "diagnosis"), *local])
address = server.launch()
time.sleep(5)  # it reads the files in the background
with sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{address}?{QUERY}#timeseries", wait_until="networkidle")
    page.get_by_role("button", name="Settings").last.click()  # close the panel at the right
    page.wait_for_timeout(4_000)
    page.screenshot(path=str(target))
    browser.close()
print(f"{target.relative_to(ROOT)} drawn, {target.stat().st_size // 1000} kB")
