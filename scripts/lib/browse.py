# SPDX-License-Identifier: Apache-2.0 OR MIT
"""browse.py CHROMIUM OUT [--within MS] [--has SELECTOR] PAGE...

Opens pages in a headless Chromium, light and dark, wide and as narrow as a phone, and takes pictures of them
into OUT. Ends with 1 and says what was wrong if a page complains, asks for anything, is wider than its window,
draws a plot outside of it or not at all, has text that is hard to read, or saves no plot, if the quickest
of four loads took longer than --within, or if nothing that --has selects is drawn. It speaks the DevTools protocol over a pipe, so that it needs nothing
but Python.
"""

import base64
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

SIZES = [(1280, 900), (390, 844)]
THEMES = ["light", "dark"]
PATIENCE = 60

# What a page is asked, in it. The contrast is WCAG's; 4.5 is what text of this size needs.
LOOK = r"""
(() => {
  const wrong = [];
  // What is out of sight is not laid out until somebody scrolls to it.
  const all = document.createElement('style');
  all.textContent = '* { content-visibility: visible !important }';
  document.head.append(all);
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth)
    wrong.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
  const plots = [...document.querySelectorAll('svg.plot')].filter(s => getComputedStyle(s).display !== 'none');
  for (const plot of plots) {
    const box = plot.getBoundingClientRect();
    const drawn = [...plot.querySelectorAll('path, rect, circle')];
    if (box.width < 100 || box.height < 20) wrong.push(`a plot of ${box.width} by ${box.height}`);
    if (!drawn.some(d => d.getTotalLength() > 1)) wrong.push('an empty plot');
    if (!plot.querySelector('title') || !plot.querySelector('desc')) wrong.push('a plot without words');
    for (const text of plot.querySelectorAll('text')) {
      const t = text.getBoundingClientRect();
      if (t.left < box.left - 1 || t.right > box.right + 1 || t.bottom > box.bottom + 1)
        wrong.push(`"${text.textContent}" reaches out of its plot`);
      if (t.height < 8) wrong.push(`"${text.textContent}" is ${t.height} high`);
    }
  }
  const parts = c => c.match(/[\d.]+/g).map(Number);
  const light = c => {
    const [r, g, b] = parts(c).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if ((parts(c)[3] ?? 1) > 0) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  let least = 99;
  for (const e of document.querySelectorAll('p, a, li, th, td, b, h1, h2, h3, span, summary, button, caption, text')) {
    const style = getComputedStyle(e);
    const ink = e.localName === 'text' ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    least = Math.min(least, contrast);
    if (contrast < 4.5) wrong.push(`<${e.localName}> "${e.textContent.slice(0, 30)}": contrast ${contrast.toFixed(1)}`);
  }
  const hidden = document.querySelectorAll('button[data-save][hidden]').length;
  if (hidden) wrong.push(`${hidden} buttons stayed hidden: the script did not run`);
  const took = performance.getEntriesByType('navigation')[0].loadEventEnd;
  return {wrong: [...new Set(wrong)].slice(0, 20), plots: plots.length, least, took};
})()
"""

# Saves the first plot; what it gets is told instead of being downloaded.
SAVE = r"""
new Promise(done => {
  const make = URL.createObjectURL;
  URL.createObjectURL = blob => { blob.text().then(done); return make.call(URL, blob); };
  HTMLAnchorElement.prototype.click = () => {};
  const button = [...document.querySelectorAll('button[data-save]')][0];
  setTimeout(() => done(''), 5000);
  if (button) button.click();
})
"""


class Browser:
    """One Chromium with one page."""

    def __init__(self, program, profile):
        self.count = 0
        self.events = []
        self.rest = b""
        ours, theirs = os.pipe(), os.pipe()
        arguments = [
            program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--hide-scrollbars", "--force-color-profile=srgb", "about:blank",
        ]
        # Its sandbox does not work for root, and in containers often for nobody. The pages are our own.
        arguments.insert(1, "--no-sandbox")

        def pipes():
            # It reads from 3 and writes to 4; copies out of the way first.
            read, write = os.dup(ours[0]), os.dup(theirs[1])
            read, write = (os.dup(f) if f in (3, 4) else f for f in (read, write))
            os.dup2(read, 3)
            os.dup2(write, 4)

        self.process = subprocess.Popen(
            arguments, preexec_fn=pipes, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(ours[0])
        os.close(theirs[1])
        self.write, self.read = ours[1], theirs[0]
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        own = self.count
        while True:
            answer = self.next()
            if answer.get("id") == own:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def next(self):
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0, until - time.monotonic()))
            more = os.read(self.read, 1 << 20) if ready else b""
            if not more:
                raise RuntimeError("Chromium does not answer, or has ended")
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, text):
        answer = self.ask("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def open(self, url):
        """Loads a page; what was wrong meanwhile."""
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.next())
        # Behind everything that the page's script has started.
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        return self.complaints(url)

    def complaints(self, url):
        wrong = []
        for event in self.events:
            method, about = event.get("method"), event.get("params", {})
            if method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
                wrong.append(f"console: {about['args']}")
            elif method == "Runtime.exceptionThrown":
                wrong.append(f"exception: {about['exceptionDetails'].get('exception', about)}")
            elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                wrong.append(f"log: {about['entry']['text']}")
            elif method == "Network.requestWillBeSent":
                asked = about["request"]["url"]
                if asked.split("#")[0] != url and not asked.startswith(("data:", "blob:")):
                    wrong.append(f"it asks for {asked}")
        return wrong

    def close(self):
        try:
            self.session = None
            self.ask("Browser.close")
        except (RuntimeError, OSError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def picture(browser, path, width, height, whole):
    if whole:
        height = min(browser.evaluate("document.documentElement.scrollHeight"), 12000)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=whole)
    path.write_bytes(base64.b64decode(shot["data"]))


def look(browser, page, out, within, has):
    """All that is wrong with a page."""
    url = page.resolve().as_uri()
    wrong = []
    times = []
    for width, height in SIZES:
        for theme in THEMES:
            browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=1, mobile=width < 500)
            browser.ask("Emulation.setEmulatedMedia",
                        features=[{"name": "prefers-color-scheme", "value": theme}])
            name = f"{page.stem}-{theme}-{width}"
            wrong += [f"{name}: {w}" for w in browser.open(url)]
            found = browser.evaluate(LOOK)
            times.append(found["took"])
            wrong += [f"{name}: {w}" for w in found["wrong"]]
            if not found["plots"]:
                wrong.append(f"{name}: no plot")
            drawn = f"[...document.querySelectorAll({json.dumps(has)})].some(d => d.getTotalLength() > 1)"
            if has and not browser.evaluate(drawn):
                wrong.append(f"{name}: nothing is drawn at {has}")
            picture(browser, out / f"{name}.png", width, height, False)
            picture(browser, out / f"{name}-whole.png", width, height, True)
            print(f"{name}: {found['plots']} plots, least contrast {found['least']:.1f}, "
                  f"loaded in {found['took']:.0f} ms")
    if within and min(times) > within:
        wrong.append(f"{page.stem}: it takes {min(times):.0f} ms to load, and may take {within}")
    saved = browser.evaluate(SAVE)
    if not saved.startswith("<svg") or "--c0:" not in saved or "xmlns=" not in saved:
        wrong.append(f"{page.stem}: what it saves is no plot: {saved[:80]!r}")
    else:
        (out / f"{page.stem}-saved.svg").write_text(saved, encoding="utf-8")
    return wrong


def main():
    program, out, *pages = sys.argv[1:]
    within, has = 0, ""
    if pages[0] == "--within":
        within, pages = int(pages[1]), pages[2:]
    if pages[0] == "--has":
        has, pages = pages[1], pages[2:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            wrong = [w for page in pages
                     for w in look(browser, pathlib.Path(page), pathlib.Path(out), within, has)]
        finally:
            browser.close()
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
