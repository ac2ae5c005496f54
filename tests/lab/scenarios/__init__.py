"""Every scenario of the fault lab. A module here has a tuple SCENARIOS, and that is all the registration there is."""

from __future__ import annotations

import importlib
import pkgutil

from tests.lab.scenarios.base import Scenario


def every_scenario() -> tuple[Scenario, ...]:
    """All scenarios, by module in alphabetical order."""
    found: list[Scenario] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        if module != "base":
            found += importlib.import_module(f"{__name__}.{module}").SCENARIOS
    names = [scenario.name for scenario in found]
    assert len(names) == len(set(names)), f"expected every scenario to have a name of its own, got {sorted(names)}"
    return tuple(found)
