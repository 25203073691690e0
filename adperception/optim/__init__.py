"""Distributed optimisers for any PyTorch training loop; needs torch only.

``SyncOptimizer(optimizer, strategy, trigger)`` lets every worker train on its own and brings the workers together in
rounds. Strategies: who is pulled where (EASGD, LSGD, MGRAWA, LGRAWA, DPSGD, MATCHA, ALDSGD; to compare with: LocalSGD,
PostLocalSGD, SlowMo, DiLoCo, DPPF, DataParallel). Triggers: when a round happens. Graph schedules: who mixes with whom.
Local optimisers and a scheduler that go with all of it: SAM, LPFSGD, EntropySGD, NesterovMomentum, AutoDrop.
"""

from adperception.optim.al_dsgd_graphs import *  # noqa: F403
