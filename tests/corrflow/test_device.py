import ctypes
import subprocess
import sys

import pytest
import torch

from corrflow import InputError
from corrflow.device import choose_device, has_bfloat16

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("capabilities", "expected"), [({"amx_bf16": True}, True), ({}, False)])
def test_a_cpu_is_fast_at_bfloat16_if_it_has_amx(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(CPU) == expected


def test_a_torch_without_cpu_capabilities_stays_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16(CPU)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_a_gpu_is_fast_at_bfloat16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(CUDA) == expected


def test_the_error_for_an_unknown_device_names_it():
    with pytest.raises(InputError, match="device 'tpu': expected auto, cpu or cuda"):
        choose_device("tpu")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_keeping_freed_memory_saves_page_faults():
    faults = {keep: page_faults(keep) for keep in (False, True)}
    assert faults[True] < faults[False] / 3


def page_faults(keep):
    """Page faults of a process that allocates twenty blocks of 64 MiB, one after the other."""
    code = (
        "import resource, torch\nfrom corrflow.memory import keep_freed_memory\n"
        f"if {keep}: keep_freed_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before = faults()\n"
        "for _ in range(20): torch.ones(16 * 2**20)\n"
        "print(faults() - before)"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
