"""CUDA's names on the CPU: in force inside the block, gone after it."""

import pytest
import torch

from megatron_bridge.device import backend, megatron_runtime, training_device

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA needs no substitution")

_NAMES = ("current_device", "synchronize", "get_rng_state", "manual_seed")


def test_cpu_and_gloo():
    assert (training_device().type, backend()) == ("cpu", "gloo")


def test_cuda_devices_become_the_cpu():
    with megatron_runtime():
        tensors = [
            torch.zeros(2, device="cuda"),
            torch.ones(2, device=torch.device("cuda", 0), dtype=torch.float32),
            torch.zeros(2).cuda(),
            torch.zeros(2).to("cuda"),
            torch.zeros(2).to("cuda", torch.float64),
            torch.zeros(2).to(device="cuda:0"),
            torch.zeros(2, device=torch.cuda.current_device()),
            torch.zeros(2, pin_memory=True),
        ]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        assert tensors[4].dtype is torch.float64
        assert torch.zeros(1).type() == "torch.cuda.FloatTensor"
        torch.cuda.synchronize()


def test_random_state_is_torchs_own():
    with megatron_runtime():
        torch.cuda.manual_seed(5)
        state = torch.cuda.get_rng_state()
        drawn = torch.rand(3)
        torch.set_rng_state(state)
        assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(fails):
    import megatron.core.tensor_parallel.random as megatron_random

    def names():
        return [getattr(torch.cuda, name) for name in _NAMES] + [
            megatron_random._get_cuda_rng_state,
            megatron_random._set_cuda_rng_state,
        ]

    before = names()
    try:
        with megatron_runtime(), megatron_runtime():  # an inner block changes nothing
            assert all(now is not then for now, then in zip(names(), before, strict=True))
            if fails:
                raise KeyError
        assert not fails
    except KeyError:
        assert fails
    assert names() == before
    assert torch.zeros(1).type() == "torch.FloatTensor"
    with pytest.raises((AssertionError, RuntimeError), match=r"(?i)cuda"):
        torch.zeros(1, device="cuda")


def test_an_inner_block_does_not_end_the_outer_one():
    with megatron_runtime():
        with megatron_runtime():
            pass
        assert torch.zeros(1, device="cuda").device.type == "cpu"
