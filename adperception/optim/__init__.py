"""Distributed optimisers for any PyTorch training loop; needs torch only.

``SyncOptimizer(optimizer, strategy, trigger)`` lets every worker train on its own and brings the workers together in
rounds. Strategies: who is pulled where (EASGD, LSGD, MGRAWA, LGRAWA, DPSGD, MATCHA, ALDSGD; to compare with: LocalSGD,
PostLocalSGD, SlowMo, DiLoCo, DPPF, DataParallel). Triggers: when a round happens. Graph schedules: who mixes with whom.
Local optimisers and a scheduler that go with all of it: SAM, LPFSGD, EntropySGD, NesterovMomentum, AutoDrop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adperception.optim.al_dsgd_graphs import al_dsgd_graph
from adperception.optim.aldsgd import ALDSGD
from adperception.optim.autodrop import AutoDrop
from adperception.optim.collectives import (
    AllReduce,
    Broadcast,
    Commit,
    Communicator,
    Mix,
    Note,
    RollCall,
    RoundFailedError,
    TakeTicket,
)
from adperception.optim.consensus import ConsensusSwap, consensus
from adperception.optim.data_parallel import DataParallel, PostLocalSGD
from adperception.optim.diloco import DiLoCo
from adperception.optim.dppf import DPPF
from adperception.optim.dpsgd import DPSGD
from adperception.optim.easgd import EASGD
from adperception.optim.entropy_sgd import EntropySGD
from adperception.optim.graph_schedules import CompleteSchedule, FixedSchedule, GraphSchedule, RingSchedule
from adperception.optim.graphs import Graph
from adperception.optim.lgrawa import LGRAWA
from adperception.optim.local_sgd import LocalSGD
from adperception.optim.lpf_sgd import LPFSGD
from adperception.optim.lsgd import LSGD
from adperception.optim.matcha import MATCHA
from adperception.optim.matcha_schedule import MATCHASchedule
from adperception.optim.mgrawa import MGRAWA
from adperception.optim.nesterov import NesterovMomentum
from adperception.optim.rotating_schedule import RotatingSchedule
from adperception.optim.sam import SAM
from adperception.optim.simulation import Compute, Simulation
from adperception.optim.slow_mo import SlowMo
from adperception.optim.strategy import Strategy
from adperception.optim.sync_optimizer import SyncOptimizer
from adperception.optim.triggers import EverySamples, EverySteps, Ticket, Trigger
from adperception.optim.worker import RoundReport

if TYPE_CHECKING:
    from adperception.optim.torch_communicator import TorchCommunicator

__all__ = [
    "ALDSGD",
    "DPPF",
    "DPSGD",
    "EASGD",
    "LGRAWA",
    "LPFSGD",
    "LSGD",
    "MATCHA",
    "MGRAWA",
    "SAM",
    "AllReduce",
    "AutoDrop",
    "Broadcast",
    "Commit",
    "Communicator",
    "CompleteSchedule",
    "Compute",
    "ConsensusSwap",
    "DataParallel",
    "DiLoCo",
    "EntropySGD",
    "EverySamples",
    "EverySteps",
    "FixedSchedule",
    "Graph",
    "GraphSchedule",
    "LocalSGD",
    "MATCHASchedule",
    "Mix",
    "NesterovMomentum",
    "Note",
    "PostLocalSGD",
    "RingSchedule",
    "RollCall",
    "RotatingSchedule",
    "RoundFailedError",
    "RoundReport",
    "Simulation",
    "SlowMo",
    "Strategy",
    "SyncOptimizer",
    "TakeTicket",
    "Ticket",
    "TorchCommunicator",
    "Trigger",
    "al_dsgd_graph",
    "consensus",
]


def __getattr__(name: str) -> Any:
    """``TorchCommunicator``, imported when asked for: some builds of torch have no ``torch.distributed``."""
    if name == "TorchCommunicator":
        from adperception.optim.torch_communicator import TorchCommunicator

        return TorchCommunicator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
