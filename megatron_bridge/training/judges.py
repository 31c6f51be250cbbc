"""What verifier and annotator did in a step, as plain numbers: counts, costs and rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from megatron_bridge.training.collect import Rollout


def judge_metrics(rollouts: Sequence[Rollout]) -> dict[str, float | int]:
    """Over the global batch. `annotator/failed_fraction` is of responses; `annotator/<reason>` counts those without an
    annotation; where a language model was asked also requests (retries included), answers found in the cache, tokens,
    cost, and requests a second between the first question and the last answer.
    """
    annotations = [r.annotation for r in rollouts]
    missing = [a.missing for a in annotations if a.missing is not None]
    metrics: dict[str, float | int] = {
        "verifier/failed_fraction": sum(r.verifier_failure is not None for r in rollouts) / len(rollouts),
        "annotator/failed_fraction": sum(reason.is_failure for reason in missing) / len(rollouts),
        "teacher/withheld_fraction": sum(bool(r.withheld) for r in rollouts) / len(rollouts),
    }
    metrics |= {f"annotator/{reason}": count for reason, count in sorted(Counter(missing).items())}
    usages = [a.usage for a in annotations if a.usage is not None]
    if not usages:
        return metrics
    asked = [usage for usage in usages if usage.ended > usage.began]
    seconds = max(u.ended for u in asked) - min(u.began for u in asked) if asked else 0.0
    requests = sum(usage.requests for usage in usages)
    failures = Counter(usage.cache_failure for usage in usages if usage.cache_failure is not None)
    return metrics | {
        "annotator/requests": requests,
        "annotator/cached": sum(usage.cached for usage in usages),
        "annotator/prompt_tokens": sum(usage.prompt_tokens for usage in usages),
        "annotator/completion_tokens": sum(usage.completion_tokens for usage in usages),
        "annotator/cost": sum(usage.cost for usage in usages),
        "annotator/requests_per_second": requests / seconds if seconds else 0.0,
        **{f"annotator/cache_{reason}": count for reason, count in sorted(failures.items())},
    }
