"""Compiles a copy of the sources: ``python -m native.build FOLDER`` leaves packages there with a ``.so`` beside each ``.py``.

The copy's hot modules are written out first (``expand``), so the sources beside the compiled modules are what tracebacks speak
of. Needs mypy, setuptools and a C compiler.
"""

import argparse
import ast
import asyncio
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from native.expand import Fields, classes, expand
from native.hazards import hazards
from native.modules import compiled
from native.practice import practise

GROUP = "pointsman"
"""Names the one shared library that has the code; the others only find their module in it."""
DIRECT = ["-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt"]
"""Calls within the library go straight to what they call, for nobody else may put something in its place."""
COUNTING = ["-fprofile-generate", "-fprofile-update=single"]
"""The daemon's work is done in one thread; what others run is of no weight."""
KNOWING = ["-fprofile-use", "-fprofile-partial-training", "-Wno-missing-profile"]
"""What was not run is compiled as ever: that it did not come up in practice says little."""
_END = re.compile(r"^\w+_dealloc\(.*\n\{\n(?:.*\n)*?\}\n", re.MULTILINE)
"""A function that ends an object."""
_TRASHCAN = re.compile(r"^ *CPy_TRASHCAN_(?:BEGIN|END)\(.*\)\n", re.MULTILINE)
PACKAGES = ("messages", "actors", "otel", "runtime")


def build(root: Path, folder: Path, optimise: str = "2", jobs: int | None = None, *, profiled: bool = False) -> list[Path]:
    """Compile what is under ``root`` into ``folder``; returns the compiled modules, relative to it.

    ``optimise`` is the C compiler's level: 1 takes half as long as 2, and gives code that takes a tenth longer. ``profiled``:
    it is compiled twice, the second time knowing what the daemon of the first has run (``practice``); needs gcc.

    Raises ``SystemExit`` where mypy or the C compiler finds fault.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for extra in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(root / extra, folder)
    names = compiled(folder)
    fields: dict[str, Fields] = {}
    for name in names:
        if lines := hazards((folder / name).read_text()):
            raise SystemExit(
                f"{name}: waits while an exception is handled, in line {', '.join(map(str, lines))} (native/hazards.py)"
            )
        fields |= {made.node.name: made.fields for made in classes(ast.parse((folder / name).read_text()))}
    for name in names:
        (folder / name).write_text(expand((folder / name).read_text(), fields))
    return _compile(folder, names, optimise, jobs or os.cpu_count() or 1, profiled)


def _compile(folder: Path, names: list[Path], optimise: str, jobs: int, profiled: bool) -> list[Path]:
    from mypyc.build import mypycify
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    class SideBySide(build_ext):
        """Compiles the files of one extension at once: nearly all is in one, and setuptools would take one after the other."""

        def build_extension(self, ext: Extension) -> None:
            def compiled_from(source: str) -> list[str]:
                objects: list[str] = self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    macros=ext.define_macros,
                    include_dirs=ext.include_dirs,
                    extra_postargs=ext.extra_compile_args,
                    depends=ext.depends,
                )
                return objects

            with ThreadPoolExecutor(jobs) as pool:
                ext.extra_objects = [name for names in pool.map(compiled_from, ext.sources) for name in names]
            ext.sources = []
            super().build_extension(ext)

    def make(more: list[str]) -> None:
        made = [
            Extension(
                extension.name,
                list(extension.sources),
                include_dirs=extension.include_dirs,
                extra_compile_args=[*extension.extra_compile_args, *DIRECT, *more],
                extra_link_args=more,
                depends=extension.depends,
            )
            for extension in extensions
        ]
        command = SideBySide(Distribution({"name": GROUP, "ext_modules": made}))
        command.inplace = command.force = True
        command.finalize_options()
        command.run()

    before = Path.cwd()
    os.chdir(folder)
    try:
        flags = ["--config-file=pyproject.toml", *(str(name) for name in names)]
        extensions = mypycify(flags, opt_level=optimise, multi_file=True, group_name=GROUP, target_dir="c")
        for source in Path("c").glob("*.c"):
            source.write_text(without_trashcan(source.read_text()))
        if profiled:
            # What is noted lies beside the object files, under the names the compiler looks for the second time.
            make(COUNTING)
            asyncio.run(practise(folder))
            if not any(folder.rglob("*.gcda")):
                raise SystemExit("the build has practised, and nothing was noted of it: is the compiler gcc?")
        # To link all at once too takes a third longer; a build for tests must be there soon.
        make([*KNOWING, f"-flto={jobs}"] if profiled else [])
    finally:
        os.chdir(before)
    return sorted(path.relative_to(folder) for path in folder.rglob("*.so") if "build" not in path.relative_to(folder).parts)


def without_trashcan(source: str) -> str:
    """``source``, in C, with no trashcan where what ends is unknown to the garbage collector.

    The trashcan keeps long chains from ending by recursion, and for that writes to the head that only the collector's objects
    have. mypyc 2.4 gives it to ``acyclic`` classes too; these make no long chains.
    """
    return _END.sub(lambda end: end[0] if "PyObject_GC_UnTrack(" in end[0] else _TRASHCAN.sub("", end[0]), source)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m native.build", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--optimise", default="2", choices=("0", "1", "2", "3"), help="level of the C compiler")
    parser.add_argument("--profiled", action="store_true", help="compile twice: the second time for what the first has run")
    options = parser.parse_args()
    found = build(Path(__file__).parent.parent, options.folder.resolve(), options.optimise, profiled=options.profiled)
    print(f"{len(found)} compiled modules", file=sys.stderr)


if __name__ == "__main__":
    main()
