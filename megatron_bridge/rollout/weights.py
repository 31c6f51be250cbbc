"""The policy's weights, from Megatron's shards to SGLang servers: gathered, under Hugging Face's names, in buckets.

Rank 0 sends; every rank takes part in the gathering. Suffixes: none, weights keep the shapes of the model.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import pickle
import socket
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_never
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Backend, PrefixStore, _new_process_group_helper, _world

from megatron_bridge.device import backend, training_device
from megatron_bridge.model.hf import collect_hf, save_hf
from megatron_bridge.model.shape import ModelShape
from megatron_bridge.rollout.background import Background
from megatron_bridge.rollout.client import Client
from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.rollout.launcher import free_port
from megatron_bridge.rollout.servers import Server, State
from megatron_bridge.rollout.settings import RolloutSettings

_GROUP_SECONDS = 60.0  # for servers to join a process group, and for one broadcast
_FLUSH_SECONDS = 60.0
Named = list[tuple[str, torch.Tensor]]


def buckets(tensors: Iterable[tuple[str, torch.Tensor]], limit: int) -> Iterator[Named]:
    """Cut named tensors into lists of at most `limit` bytes; a larger tensor stands alone."""
    bucket: Named = []
    size = 0
    for name, tensor in tensors:
        if bucket and size + tensor.nbytes > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, tensor))
        size += tensor.nbytes
    if bucket:
        yield bucket


def pickled(bucket: Named) -> str:
    """Named tensors as SGLang's from-tensor call reads them: base64 of a pickled list of CPU tensors."""
    own = [(name, _compact(tensor.cpu())) for name, tensor in bucket]
    return base64.b64encode(pickle.dumps(own)).decode("ascii")


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with a storage of its own size: pickling a view would carry all that it looks into."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.contiguous().clone()


class WeightSender:
    """Sends the weights of one model to the servers of one client. `client` and `background` are None but on rank 0."""

    def __init__(
        self,
        client: Client | None,
        background: Background | None,
        settings: RolloutSettings,
        *,
        shape: ModelShape,
        policy: Path,
        directory: Path,
    ) -> None:
        """`policy` is the directory that the model came from, `directory` where sync=disk puts its files."""
        self._client, self._background, self._settings = client, background, settings
        self._shape, self._policy, self._directory = shape, policy, directory
        self._group: _Group | None = None
        self._groups = 0

    def send(self, model: torch.nn.ModuleList, unproved: str) -> list[Server]:
        """Send the weights while nothing is drawn; the servers that took them and emptied their caches (rank 0).

        Before the first of them a server is told `unproved`, a name of no step: whatever fails on the way, it is not
        taken for one with the weights of now. `name` gives it the right one once they are proved. Collective over all
        ranks. A server that fails is left out. Raises CheckpointError where sync=disk cannot write; every other failure
        is the caller's to see from the list.
        """
        servers = [] if self._client is None else [s for s in self._client.pool.servers if s.state is not State.DOWN]
        servers = self.name(servers, unproved)
        match self._settings.sync:
            case "disk":
                save_hf(model, self._shape, self._policy, self._directory)
                body = {"model_path": str(self._directory.resolve()), "flush_cache": False}
                return self._flushed(self._all(servers, "/update_weights_from_disk", body))
            case "tensor":
                pieces = buckets(collect_hf(model, self._shape), self._settings.bucket_mb * 2**20)
                servers = self._begun(servers)
                for bucket in pieces:
                    servers = self._send_tensors(servers, bucket)
                return self._flushed(self._ended(servers))
            case "distributed":
                pieces = buckets(collect_hf(model, self._shape, to_cpu=False), self._settings.bucket_mb * 2**20)
                servers = self._begun(self._joined(servers))
                for bucket in pieces:
                    servers = self._broadcast(servers, bucket)
                return self._flushed(self._ended(servers))
            case _:
                assert_never(self._settings.sync)

    def name(self, servers: Sequence[Server], version: str) -> list[Server]:
        """Give what servers hold a name; those that took it."""
        return self._all(servers, "/update_weight_version", {"new_version": version, "abort_all_requests": False})

    def close(self) -> None:
        """Leave the process group that the servers share."""
        if self._group is not None:
            self._group.leave()
            self._group = None

    # --------------------------------------------------------------------------------------------------------- calls

    def _all(
        self, servers: Sequence[Server], path: str, body: dict[str, Any], *, seconds: float | None = None
    ) -> list[Server]:
        """Make one call to every server at once; those that answered well."""
        return self._answered(self._asked(servers, path, body, seconds=seconds))

    def _asked(
        self, servers: Sequence[Server], path: str, body: dict[str, Any], *, seconds: float | None = None
    ) -> list[tuple[Server, Future[bytes]]]:
        if self._client is None or self._background is None:
            return []
        wait = seconds or self._settings.request_timeout
        return [(s, self._background.submit(self._client.call(s, path, body, seconds=wait))) for s in servers]

    def _answered(self, calls: Sequence[tuple[Server, Future[bytes]]]) -> list[Server]:
        well = []
        for server, call in calls:
            try:
                call.result()
                well.append(server)
            except RolloutError as error:
                self._lost(server, error)
        return well

    def _lost(self, server: Server, error: RolloutError) -> None:
        """Leave a server out that failed; the watch finds it again, with other weights than those of now."""
        assert self._client is not None
        assert self._background is not None
        self._client.problem = str(error)
        self._background.run(self._client.pool.set_state(server, State.DOWN))

    def _none(self, servers: Sequence[Server], problem: str) -> list[Server]:
        """Leave all of them out."""
        for server in servers:
            self._lost(server, RolloutError(f"{server.url}: {problem}"))
        return []

    def _begun(self, servers: Sequence[Server]) -> list[Server]:
        """Open the sessions that newer servers want; one that an earlier failure left open is closed first."""
        plain = [server for server in servers if not server.session]
        opening = [server for server in servers if server.session]
        for _, call in self._asked(opening, "/end_weight_update", {}):
            with contextlib.suppress(RolloutError):
                call.result()
        return plain + self._all(opening, "/begin_weight_update", {})

    def _ended(self, servers: Sequence[Server]) -> list[Server]:
        plain = [server for server in servers if not server.session]
        return plain + self._all([s for s in servers if s.session], "/end_weight_update", {})

    def _flushed(self, servers: Sequence[Server]) -> list[Server]:
        """Empty the caches, which the old weights filled. An update that flushes itself ends 0.5.20 if it is busy."""
        return self._all(servers, f"/flush_cache?timeout={_FLUSH_SECONDS:g}", {}, seconds=_FLUSH_SECONDS + 30)

    # ------------------------------------------------------------------------------------------------------- tensors

    def _send_tensors(self, servers: Sequence[Server], bucket: Named) -> list[Server]:
        blob = pickled(bucket)
        calls = []
        for server in servers:
            body = {"serialized_named_tensors": [blob] * server.ranks, "flush_cache": False}
            calls += self._asked([server], "/update_weights_from_tensor", body)
        return self._answered(calls)

    # --------------------------------------------------------------------------------------------------- distributed

    def _joined(self, servers: Sequence[Server]) -> list[Server]:
        """The servers in a process group with rank 0; it is made anew when another set of them is there."""
        members = tuple((server.url, server.lives) for server in servers)
        if self._group is not None and self._group.members == members:
            return list(servers)
        if self._group is not None:
            self._all(servers, "/destroy_weights_update_group", {"group_name": self._group.name})
            self.close()
        if not servers or self._client is None:
            return []
        self._groups += 1
        name, port = f"{self._client.run}-{self._groups}", free_port()
        world = 1 + sum(server.ranks for server in servers)
        try:
            address = address_seen_by([server.url for server in servers])
        except OSError as error:
            return self._none(servers, f"no address of this machine for a process group: {error}")
        calls, offset = [], 1
        for server in servers:
            body = {
                "master_address": address,
                "master_port": port,
                "rank_offset": offset,
                "world_size": world,
                "group_name": name,
                "backend": backend(),
            }
            calls += self._asked([server], "/init_weights_update_group", body, seconds=_GROUP_SECONDS + 30)
            offset += server.ranks
        try:
            self._group = _Group(name, members, address, port, world)
        except (RuntimeError, dist.DistStoreError) as error:
            return self._none(servers, f"no process group: {error}")
        well = self._answered(calls)
        if len(well) < len(servers):  # a broadcast would wait for who is missing
            self.close()
            return []
        return well

    def _broadcast(self, servers: Sequence[Server], bucket: Named) -> list[Server]:
        if self._group is None or not servers:
            return []
        body = {
            "names": [name for name, _ in bucket],
            "dtypes": [str(tensor.dtype).removeprefix("torch.") for _, tensor in bucket],
            "shapes": [list(tensor.shape) for _, tensor in bucket],
            "group_name": self._group.name,
            "flush_cache": False,
        }
        calls = self._asked(servers, "/update_weights_from_distributed", body)
        try:
            self._group.broadcast([tensor for _, tensor in bucket])
        except RuntimeError as error:  # someone in the group is gone: what the others got is not known
            self.close()
            return self._none(servers, f"the broadcast of weights failed: {error}")
        return self._answered(calls)


class _Group:
    """A process group of rank 0 and the ranks of some servers, beside those of training."""

    def __init__(self, name: str, members: tuple[tuple[str, int], ...], address: str, port: int, world: int) -> None:
        self.name, self.members = name, members
        wait = timedelta(seconds=_GROUP_SECONDS)
        # made by hand: torch's rendezvous would join torchrun's own store
        store = dist.TCPStore(address, port, world, is_master=True, timeout=wait, wait_for_workers=False)
        # torch has no public way to make a group with processes outside of its world; SGLang makes its side like this
        self._group, _ = _new_process_group_helper(
            world, 0, [], Backend(backend()), PrefixStore(name, store), group_name=name, timeout=wait
        )
        _world.pg_group_ranks[self._group] = {rank: rank for rank in range(world)}

    def broadcast(self, tensors: Sequence[torch.Tensor]) -> None:
        """Send tensors from rank 0, in order. Raises RuntimeError where a member is gone."""
        device = training_device()
        work = [
            dist.broadcast(tensor.to(device).contiguous(), 0, group=self._group, async_op=True) for tensor in tensors
        ]
        for one in work:
            one.wait()

    def leave(self) -> None:
        """Forget the group; members that are gone are not waited for."""
        with contextlib.suppress(RuntimeError, ValueError):
            dist.destroy_process_group(self._group)


def address_seen_by(urls: Sequence[str]) -> str:
    """This machine's address on the way to servers: to one elsewhere if there is one, whom the loopback would not
    reach. Raises OSError for a host that cannot be found.
    """
    addresses = [_address_towards(url) for url in urls]
    return next((found for found in addresses if not ipaddress.ip_address(found).is_loopback), addresses[0])


def _address_towards(url: str) -> str:
    parts = urlsplit(url)
    family, kind, _, _, address = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing
        return str(probe.getsockname()[0])
