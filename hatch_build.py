"""Packs a compiled tree (``native.build``) as a wheel for one Python and platform; any other tree is plain Python."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledTree(BuildHookInterface[Any]):
    """Looks whether the shared library of the compiled modules is there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the library, which lies beside the packages, and name the platform in the wheel's tag."""
        libraries = {str(path): path.name for path in Path(self.root).glob("pointsman__mypyc*.so")}
        if libraries and version != "editable":
            build_data["force_include"] |= libraries
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
