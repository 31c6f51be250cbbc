"""Lowering on a machine with a GPU: the host never waits for the device."""

from __future__ import annotations

import pytest
import torch

from tools.bench_lower import make_batch, make_plan
from trace_dsl.lowering import lower


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_synchronisation_with_the_device() -> None:
    plan, batch, device = make_plan(), make_batch(16, 1024), torch.device("cuda")
    torch.zeros(1, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        routing = lower(plan, batch, 20).routing.to(device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(routing.weight_CT.cpu(), lower(plan, batch, 20).routing.weight_CT, rtol=0, atol=0)


def test_everything_is_lowered_on_the_host() -> None:
    lowered = lower(make_plan(), make_batch(16, 1024), 20)
    routing = lowered.routing
    tensors = (routing.weight_CT, routing.advantage_CT, routing.row_of_T, lowered.advantage_R, lowered.route_of_T)
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert len(make_plan().routes) == 8
    assert set(lowered.route_of_T.tolist()) == set(range(8)) | {-1}
