"""Answers to reasoning-gym tasks, scored by the task that posed them. Runs in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron_bridge.data.gym import gym_dataset
from megatron_bridge.verify.extract import extract_answer


class GymGrader:
    """Scores answers; the entry is made again from its seed and index, as some hold more than JSON can."""

    def __init__(self, dataset: str, config: Mapping[str, Any]) -> None:
        self._dataset, self._config = dataset, config

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        answer = extract_answer(request["response"], request["extract"])
        if answer is None:
            return {"reward": 0.0, "reason": "no answer was given in the form that is asked for"}
        dataset = gym_dataset(self._dataset, request["seed"], self._config)
        score = float(dataset.score_answer(answer, dataset[request["index"]]))
        return {"reward": score, "reason": "the answer is right" if score >= 1 else "the answer is wrong"}
