"""The virtual environment in `.venv`, filled from the hashed lists in `locks/`.

Nothing is done twice: each set leaves a stamp with the hash of the list it was installed from.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from workshop import machine
from workshop.process import environment, run
from workshop.say import step

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"
LOCKS = ROOT / "locks"
STAMPS = VENV / ".stamps"
CACHE = ROOT / ".cache"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two commands started together do not install into the same place; the second one waits."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def install(*sets: str) -> None:
    """After this `.venv` holds these sets of `locks/` and the package itself, in editable form."""
    make_venv()
    for name in ("build", *sets):
        install_set(name)
    once("package", [ROOT / "pyproject.toml"], "Installing server-monitor itself", install_package)


def make_venv() -> None:
    if PYTHON.exists() and made_for_this_checkout():
        return
    shutil.rmtree(VENV, ignore_errors=True)
    step(f"Making .venv with Python {sys.version_info.major}.{sys.version_info.minor}")
    if uv := shutil.which("uv"):
        run([uv, "venv", "--quiet", "--python", sys.executable, VENV], cwd=ROOT)
    else:
        machine.ensure_venv_module()
        run([sys.executable, "-m", "venv", VENV], cwd=ROOT)
    STAMPS.mkdir()
    (STAMPS / "checkout").write_text(str(ROOT))


def made_for_this_checkout() -> bool:
    """False after the checkout was moved or copied: the scripts in a venv hold absolute paths."""
    stamp = STAMPS / "checkout"
    return not stamp.exists() or stamp.read_text() == str(ROOT)


def install_set(name: str) -> None:
    lock = LOCKS / f"{name}.txt"
    once(name, [lock], f"Installing locks/{name}.txt", lambda: install_lock(lock))


def install_lock(lock: Path) -> None:
    run([*installer(), "--require-hashes", "--requirement", lock], cwd=ROOT)


def install_package() -> None:
    """Needs no network: what builds it came with locks/build.txt, what it imports with the other sets."""
    run([*installer(), "--no-deps", "--no-build-isolation", "--editable", ROOT], cwd=ROOT)


def installer() -> list[str]:
    """The command that installs into `.venv`: uv, or pip where only pip knows the package index."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *quiet]
    uv = shutil.which("uv")
    if uv is None:
        ensure_pip()
        if pip_has_an_index_of_its_own():
            return pip
        uv = str(BIN / "uv")
        once("uv", [LOCKS / "uv.txt"], "Installing uv", lambda: install_uv(pip))
    # pip compiles what it installs, uv only when told; uncompiled, the first start takes three times as long.
    return [uv, "pip", "install", "--compile-bytecode", "--python", str(PYTHON), *quiet]


def ensure_pip() -> None:
    """Not there when uv made `.venv` and has since left the PATH."""
    if not (BIN / "pip").exists():
        machine.ensure_venv_module()
        run([PYTHON, "-m", "ensurepip", "--default-pip"], cwd=ROOT)


def install_uv(pip: Sequence[str]) -> None:
    run([*pip, "--require-hashes", "--requirement", LOCKS / "uv.txt"], cwd=ROOT)


def pip_has_an_index_of_its_own() -> bool:
    """A mirror or a folder of wheels told to pip alone. uv does not read pip's configuration."""
    listed = subprocess.run(
        [PYTHON, "-m", "pip", "config", "list"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return re.search(r"\.(index-url|no-index)=", listed.stdout) is not None


def once(name: str, sources: Sequence[Path], saying: str, act: Callable[[], None]) -> None:
    """Do it, unless the stamp says it was done with the same content of `sources`."""
    wanted = digest(sources)
    stamp = STAMPS / name
    if stamp.exists() and stamp.read_text() == wanted:
        return
    step(saying)
    act()
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(wanted)


def digest(files: Sequence[Path]) -> str:
    """One hash over the names and contents of files below the checkout, in the order given."""
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.relative_to(ROOT)}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def become_console(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the console, so that signals reach it without a parent between.

    It starts in the checkout, where its `.env` and its `data/` are, wherever the command was typed.
    """
    os.chdir(ROOT)
    program = BIN / "server-monitor"
    os.execv(program, [str(program), "serve", *arguments])
