"""What goes wrong, one function each, named by the ids of the fault catalogue. Each puts right what it broke.

L: leader and centres, N: nodes, E: etcd, T: time, S: load. A fault returns when its time is over; the director lets
some of them meet.
"""

from tests.soak.faults import centres, nodes, surroundings
from tests.soak.faults.director import Director
from tests.soak.faults.registry import FAULTS, WEIGHTS

__all__ = ["FAULTS", "WEIGHTS", "Director", "centres", "nodes", "surroundings"]
