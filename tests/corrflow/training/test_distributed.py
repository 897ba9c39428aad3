"""Errors about processes that do not join or are lost."""

import pytest
from torch.distributed import DistNetworkError, HashStore

from corrflow.training.distributed import LostRankError, gather_hosts, is_lost_connection
from corrflow.training.failures import NonFiniteError, WriteError


def test_all_ranks_that_did_not_join_are_named():
    store = HashStore()
    for rank in range(1, 10):
        store.set(f"host/{rank}", "n1")
    store.set("host/11", "n2")
    words = r"rank 10, 12 of 13 did not join within 0.1 s; the others are on n0, n1, n2"
    with pytest.raises(LostRankError, match=words):
        gather_hosts(store, 0, 13, "n0", 0.1)


def test_gloo_in_the_name_of_a_clip_or_folder_is_no_lost_connection():
    assert not is_lost_connection(NonFiniteError("step 3: loss nan; its clips: igloo/x7/000001"))
    assert not is_lost_connection(WriteError("runs/gloomy can't be written: No space left"))
    assert is_lost_connection(RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed"))
    assert is_lost_connection(DistNetworkError("the client socket has timed out"))
