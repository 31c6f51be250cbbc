"""The other side of tools/bench_rollout.py, run by the interpreter that has SGLang: its benchmark's own client.

Reads requests (JSON) from the first line of its input; draws them once for every further line, and answers with seconds
and tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import runpy
import sys
import time
import types
from pathlib import Path
from typing import Any

# what a server is given where there is no CUDA; kept, or torch forgets the operators
_given = runpy.run_path(str(Path(__file__).parents[1] / "megatron_bridge" / "rollout" / "sglang_process.py"))
# the benchmark's data sets are not read here
sys.modules.setdefault("datasets", types.SimpleNamespace(load_dataset=None))  # type: ignore[arg-type]
from sglang.benchmark import serving  # noqa: E402


async def draw(url: str, requests: list[dict[str, Any]], concurrency: int) -> None:
    """Send every request through the benchmark's request function, as its `benchmark()` does."""
    places = asyncio.Semaphore(concurrency)

    async def one(request: dict[str, Any]) -> Any:
        async with places:
            return await serving.async_request_sglang_generate(
                serving.RequestFuncInput(
                    prompt=request["input_ids"],
                    api_url=f"{url}/generate",
                    prompt_len=len(request["input_ids"]),
                    output_len=request["tokens"],
                    model="",
                    lora_name="",
                    image_data=None,
                    extra_request_body={},
                )
            )

    for output in await asyncio.gather(*(one(request) for request in requests)):
        if not output.success:
            raise SystemExit(f"a request failed: {output.error}")


def main() -> None:
    job = json.loads(sys.stdin.readline())
    serving.args = argparse.Namespace(
        temperature=1.0,
        top_p=1.0,
        disable_ignore_eos=False,
        disable_stream=True,  # one answer a request, as rollouts are fetched; with streams it is slower
        return_logprob=True,
        return_routed_experts=False,
        logprob_start_len=-1,
        top_logprobs_num=0,
        token_ids_logprob=None,
        header=None,
    )
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        asyncio.run(draw(job["url"], job["requests"], job["concurrency"]))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
