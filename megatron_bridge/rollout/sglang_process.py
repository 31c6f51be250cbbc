"""Started by the interpreter that has SGLang, never imported by a run: one server, or the router.

    .venv-sglang/bin/python megatron_bridge/rollout/sglang_process.py server $$ --model-path DIR --port 30000
    .venv-sglang/bin/python megatron_bridge/rollout/sglang_process.py router $$ --worker-urls URL URL --port 30001

The number is the process that starts it: this one ends with it. TRACE_DSL_SERVER_KEY in the environment is the key that
it asks for (--api-key, without standing in a command line). Without CUDA, SGLang's CPU path is chosen and what it
cannot import there is given: sgl-kernel has no CPU wheel (a call into it fails loudly), and a torchvision built for
CUDA defines no operators. SGLang spawns processes that run this file's top level again, so that they find the same.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import runpy
import signal
import sys
import types

import torch

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; this process has no package of the run to import it from
_KEY = os.environ.get("TRACE_DSL_SERVER_KEY", "")


class _MissingKernels(types.ModuleType):
    """Any name can be imported; a call fails."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: object, **_kwargs: object) -> None:
            raise RuntimeError(f"sgl_kernel.{name} was called, and no sgl-kernel is installed")

        return missing


def _make_importable_without_cuda() -> None:
    os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
    if importlib.util.find_spec("sgl_kernel") is None:
        kernels = _MissingKernels("sgl_kernel")
        kernels.__path__ = []
        kernels.__spec__ = importlib.util.spec_from_loader("sgl_kernel", None)
        sys.modules["sgl_kernel"] = kernels
    try:
        torch.ops.torchvision.nms  # noqa: B018 (looking it up is the question)
    except AttributeError:
        _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if not torch.cuda.is_available():
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    _make_importable_without_cuda()


def _keep_out_of_the_log(key: str) -> None:
    """SGLang logs its arguments."""
    made = logging.getLogRecordFactory()

    def record(*arguments: object, **more: object) -> logging.LogRecord:
        one = made(*arguments, **more)
        if key in (text := one.getMessage()):
            one.msg, one.args = text.replace(key, "***"), ()
        return one

    logging.setLogRecordFactory(record)


if _KEY:
    _keep_out_of_the_log(_KEY)


def _end_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when the process that started this one dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")


def main() -> None:
    kind, parent, *arguments = sys.argv[1:]
    _end_with_parent(int(parent))
    if _KEY:
        arguments += ["--api-key", _KEY]
    sys.argv = [sys.argv[0], *arguments]
    if kind == "router":
        runpy.run_module("sglang_router.launch_router", run_name="__main__")
        return
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.server_args import prepare_server_args

    launch_server(prepare_server_args(arguments))


if __name__ == "__main__":
    main()
