"""What a run tells of the processes that it waits for."""

import pytest
from torch.distributed import HashStore

from corrflow.training.distributed import LostRankError, gather_hosts


def test_all_processes_that_did_not_come_are_named():
    store = HashStore()
    for rank in range(1, 10):
        store.set(f"host/{rank}", "n1")
    store.set("host/11", "n2")
    words = r"rank 10, 12 of 13 didn't come within 0.1 s; the others are on n0, n1, n2"
    with pytest.raises(LostRankError, match=words):
        gather_hosts(store, 0, 13, "n0", 0.1)
