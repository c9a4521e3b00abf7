"""Lets ``POINTSMAN_NATIVE=1`` make a wheel of compiled modules (``native``); without it a wheel is plain Python."""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface[Any]):
    """Compiles before the wheel is packed. A failure ends the build: who asked for compiled code must not get other code."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled modules, and the sources they were made from, to what goes into the wheel."""
        if os.environ.get("POINTSMAN_NATIVE") != "1" or version == "editable":
            return
        root = Path(self.root)
        sys.path.insert(0, str(root))
        from native.build import FOLDER, build
        from native.modules import compiled

        folder = root / FOLDER
        files = [*build(root, folder), *compiled(root)]
        build_data["force_include"] |= {str(folder / name): name.as_posix() for name in files}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
