"""A world of network namespaces for the fault lab: a pod, its node, a cluster, a private network, an internet.

`World` has the verbs a scenario breaks it with. Everything is real: routes, packet filters, servers. Nothing in it is
linked to the machine's own network.
"""

from tests.lab.world.change import Change
from tests.lab.world.places import TARGETS, target
from tests.lab.world.world import World

__all__ = ["TARGETS", "Change", "World", "target"]
