"""Compile what netprobe imports of the base's standard library, into a directory that is then laid over the base.

The official Python images leave compiled modules out, to be small, and a container whose root is read-only cannot keep
what it compiles: without this, each start would compile anew.

    precompile.py DIRECTORY
"""

# ruff: noqa: INP001 - a script, run where the image is built

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode, compile  # noqa: A004 - it is what this is about

import agent

NOT_IMPORTED = ("agent.__main__", "agent.demo")
"""One runs the program, the other needs what the image does not have."""


def main(directory: Path) -> None:
    """Import every module of the agent, and compile the sources that are the base's own."""
    for module in pkgutil.walk_packages(agent.__path__, "agent."):
        if not module.name.startswith(NOT_IMPORTED):
            importlib.import_module(module.name)
    for module in list(sys.modules.values()):
        source, compiled = getattr(module, "__file__", None), getattr(module, "__cached__", None)
        if source and compiled and source.endswith(".py") and not Path(source).is_relative_to(sys.prefix):
            target = directory / Path(compiled).relative_to("/")
            compile(source, str(target), doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
