"""The policy annotates its own responses, and spans come back: it says the same to everything, and that fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.jobs import ROW, metrics, own_task, train

pytestmark = pytest.mark.distributed
DEMO = Path("specs/demo/policy")
ANSWER = '{"error_spans": [{"segment_ids": [1], "error_type": "slip"}]}'
NEW_LINE, END, SPOKEN = 24, 1, 120
CONTEXT = 4096


def parrot(folder: Path) -> Path:
    """A policy that says ANSWER, one token, behind every line break and then ends; it looks at the last token alone."""
    folder.mkdir()
    for name in ("generation_config.json", "tokenizer_config.json"):
        (folder / name).write_text((DEMO / name).read_text())
    tokenizer = (DEMO / "tokenizer.json").read_text()
    assert '"<reserved 0>": 120' in tokenizer
    (folder / "tokenizer.json").write_text(tokenizer.replace('"<reserved 0>"', json.dumps(ANSWER)))
    config = json.loads((DEMO / "config.json").read_text())
    config |= {"max_position_embeddings": CONTEXT, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(DEMO / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
        elif "layernorm" in name or name == "model.norm.weight":
            tensor.fill_(1.0)
    embedding = torch.zeros_like(weights["model.embed_tokens.weight"])
    embedding[:, 2] = 1.0
    embedding[NEW_LINE, :2] = torch.tensor([1.0, 0.0])
    embedding[NEW_LINE, 2] = 0.0
    output = torch.zeros_like(embedding)
    output[SPOKEN, 0] = output[END, 2] = 10.0
    save_file(
        weights | {"model.embed_tokens.weight": embedding, "lm_head.weight": output}, folder / "model.safetensors"
    )
    return folder


@pytest.mark.parametrize("engine", ["embedded", pytest.param("sglang", marks=pytest.mark.sglang)])
def test_spans_of_the_policy_are_trained_on(tmp_path: Path, engine: str) -> None:
    """On two data-parallel ranks. The second one's questions are longer, over the context of the servers, which is
    shorter than the model's: they are too long and nothing else.
    """
    (tmp_path / "s.trace").write_text("spans error(cap=100%)\nerror when wrong: nll(w=0.5) + grpo()\nrest: grpo()\n")
    long = json.dumps(ROW | {"question": "1 " * 350})
    task = own_task(
        tmp_path,
        [json.dumps(ROW)] * 2 + [long] * 2,
        prompt={"template": "{question}\n"},
        annotator={"kind": "self", "max_tokens": 16, "error_types": ["slip"], "key_types": ["insight"]},
    )
    overrides = [
        f"spec={tmp_path / 's.trace'}",
        f"policy={parrot(tmp_path / 'policy')}",
        "rollout.max_response_tokens=8",
    ]
    overrides += [
        "steps=1",
        "rollout.prompts=4",
        "micro_batch=4",
        "layout.dp=2",
        "layout.tp=1",
        "save_rollouts_every=1",
    ]
    if engine == "sglang":
        overrides += ["rollout.engine=sglang", "rollout.launch.arguments=[--context-length, '1200']"]
    train(tmp_path, "run", *overrides, task, ranks=2)
    (line,) = metrics(tmp_path, "run")
    assert line["annotator/requests"] == (16 if engine == "embedded" else 8)
    assert line.get("annotator/too_long", 0) == (0 if engine == "embedded" else 8)
    assert line["annotator/failed_fraction"] == 0.0
    shown = [json.loads(x) for x in (tmp_path / "run/rollouts/step_000000.jsonl").read_text().splitlines()]
    assert [one["response"] for one in shown] == [ANSWER] * 16
    marked = [{"label": "error", "kind": "slip", "start": 0, "end": len(ANSWER)}]
    assert [one["spans"] for one in shown] == [marked] * 8 + [marked if engine == "embedded" else []] * 8
    assert [one["diagnosis"] for one in shown[:8]] == ["slip"] * 8
    assert [one["route"] for one in shown[:8]] == [[0, 1]] * 8  # the span, and the end token behind it
