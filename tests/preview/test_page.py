"""The page in a real browser: what hands, keys and ears get, and that its numbers are those of training."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.lowering.cases import facts_of, measured_of, random_batch, spec_of, tensors_of
from tests.lowering.reading import read, signals_to_measure
from tests.preview.browser import axe, browser, page_of
from tests.preview.cases import write_batch
from tests.preview.test_against_lower import FIXED, before_states, weights_of
from tests.preview.test_recorded import demo
from trace_dsl.lowering.lower import lower
from trace_dsl.plan import compile_plan
from trace_dsl.preview.digits import digits
from trace_dsl.preview.html import html_of
from trace_dsl.preview.preview import Preview, preview
from trace_dsl.preview.rollouts import read_rollouts

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def opened() -> Iterator[object]:
    with browser() as one:
        yield one


def write_page(found: Preview, path: Path, start: int = 10) -> Path:
    path.write_text(
        html_of(
            found, run="A run of 60 steps.", notes=["A note."], start=start,
            teacher_prompt=lambda prompt, sees, text: f"<{text}>{prompt}",
        ),
        encoding="utf-8",
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(demo(), tmp_path_factory.mktemp("page") / "preview.html")


def until(page: object, condition: str) -> None:
    """Wait for a condition; the page's policy lets nothing in it evaluate texts, so this asks from outside."""
    for _ in range(2400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"{condition} does not come about")


def row_with_an_error(page: object) -> int:
    """The first rollout with an error span, in view."""
    row = page.evaluate("DATA.rows.findIndex((r) => r.labels.error)")
    page.locator(f"#text-{row}").scroll_into_view_if_needed()
    page.locator(f"#text-{row} .seg.r0").first.wait_for()
    return row


def test_the_slider_replays_the_schedule(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        slider = page.locator("#step")
        now = page.locator(".route").first.locator(".now").first
        assert page.locator("#step-text").inner_text() == "step 10 of 60"
        assert now.inner_text() == "w 0.5"
        strong = float(page.locator("#list").evaluate("e => e.style.getPropertyValue('--a0')"))
        slider.focus()
        for _ in range(15):
            page.keyboard.press("ArrowRight")
        until(page, "stopNow === 25")
        assert now.inner_text() == "w 0.25"
        assert slider.get_attribute("aria-valuetext") == "step 25 of 60"
        page.keyboard.press("End")
        until(page, "stopNow === 59")
        assert now.inner_text() == "w 0"
        assert strong > 0
        page.click("#play")
        until(page, "stopNow > 2 && stopNow < 50")
        page.click("#play")


def test_hovering_and_tapping_show_a_token(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        segment = page.locator(f"#text-{row_with_an_error(page)} .seg.r0").first
        box = segment.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 6, box["y"] + box["height"] / 2)
        page.wait_for_selector("#details .one-loss")
        details = page.locator("#details").inner_text()
        for said in ("error when wrong", "holds: wrong", "rkl(w=kl, per=sequence)", "KL(student || teacher)", "0.5"):
            assert said in details
        token, row = page.evaluate("[chosen.token, chosen.row]")
        assert page.evaluate("([row, token]) => choiceAt(row, stopNow, token)", [row, token]) == [0]
        assert page.locator(".cursor").count() == 1


def test_keys_walk_through_a_response_and_are_spoken(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        page.locator("#filter").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "text-0"
        assert page.evaluate("chosen") == {"row": 0, "token": 0}
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("chosen.token") == 2
        spoken = page.locator("#spoken").inner_text()
        assert "route C, rest; rest/grpo weight " in spoken
        row = row_with_an_error(page)
        page.focus(f"#text-{row}")
        page.keyboard.press("n")
        assert page.evaluate("[chosen.row, choiceAt(chosen.row, stopNow, chosen.token)]") == [row, [0]]
        page.keyboard.press("End")
        assert page.evaluate("chosen.token === DATA.rows[chosen.row].tokens - 1")
        assert page.locator("#spoken").get_attribute("aria-live") == "polite"
        assert page.evaluate("document.activeElement.getAttribute('role')") == "group"


def test_a_narrow_screen_has_a_sheet_that_closes(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file, viewport={"width": 390, "height": 800}, has_touch=True) as page:
        assert not page.locator("#details").is_visible()
        page.locator("#rollouts").scroll_into_view_if_needed()
        page.locator(".seg").first.tap()
        page.wait_for_selector("#details.open")
        assert page.locator("#details").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#close").tap()
        page.wait_for_selector("#details", state="hidden")


def test_light_dark_and_the_switch(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file, color_scheme="dark") as page:
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.click("#theme")
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        assert page.evaluate(background) != dark


def test_what_the_teacher_is_shown_stands_beside_what_the_student_is(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        row = page.evaluate("DATA.rows.findIndex((r) => r.labels.error)")
        shown = page.locator("details.shown").nth(row)
        shown.locator("summary").click()
        shown.locator("pre").nth(1).wait_for()  # the browser tells the page of the opening a little later
        diagnosis = page.evaluate(f"rollout({row}).contexts.diagnosis")
        assert shown.locator("mark").first.inner_text() == f"<{diagnosis}>"
        assert "Not shown: the response, where its spans stand." in shown.inner_text()


def test_shading_by_one_loss_and_filters(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        page.select_option("#shade", label="C rest/grpo")
        assert page.locator("#list").evaluate("e => e.style.getPropertyValue('--a0')") == "0"
        page.select_option("#filter", "wrong")
        wrong = page.evaluate("DATA.rows.filter((r) => !r.correct).length")
        assert page.locator(".rollout:visible").count() == wrong > 0
        assert page.locator("#shown").inner_text() == f"{wrong} of 32"


@pytest.mark.parametrize("name", FIXED)
def test_the_pages_numbers_are_those_of_lower(opened: object, tmp_path: Path, name: str) -> None:
    """Weights and advantages as the page computes and writes them, at every token, at five steps."""
    rng = random.Random(3)
    spec = spec_of(FIXED[name])
    plan = compile_plan(spec, facts_of())
    batch = random_batch(rng)
    found = preview(spec, plan, read_rollouts(write_batch(tmp_path / "batch.jsonl", batch, spec)))
    compared = 0
    with page_of(opened, write_page(found, tmp_path / "page.html")) as page:
        for step in (0, 9, 11, 24, 99):
            reading = read(spec, facts_of(), batch, step)
            if reading.fragile or reading.refused:
                continue
            tensors = tensors_of(batch, measured_of(batch, spec, signals_to_measure(spec)))
            lowered = lower(plan, tensors, step, latches=before_states(plan, step - 1))
            told = page.evaluate(
                """step => DATA.rows.flatMap((r, row) => [...Array(r.tokens).keys()].map((token) => ({
                    route: choiceAt(row, step, token),
                    weights: DATA.losses.map((l) => digits(weight(l, row, step, token))) })))""",
                step,
            )
            part_LT = weights_of(lowered)
            for token, (one, route) in enumerate(zip(told, lowered.route_of_T.tolist(), strict=True)):
                assert one["route"] == [route]
                assert one["weights"] == [digits(weight) for weight in part_LT[:, token].tolist()]
                compared += 1
    assert compared > 30


def test_digits_are_the_same_in_both_languages(opened: object, page_file: Path) -> None:
    rng = random.Random(1)
    values = [rng.choice((-1, 1)) * rng.random() * 10 ** rng.randint(-12, 12) for _ in range(500)]
    values += [
        0.28125,
        0.00028125,
        1.5,
        1e5 + 0.5,
        999999.5,
        99995e-9,
        0.99995,
        12.0,
        -3.0,
        1e9,
        2.5e10,
        0.1 + 0.2,
        0.0,
    ]
    values += torch.rand(300).tolist()
    with page_of(opened, page_file) as page:
        assert page.evaluate("values => values.map(digits)", values) == [digits(value) for value in values]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nobody_is_kept_out(opened: object, page_file: Path, scheme: str, width: int) -> None:
    program = axe()
    with page_of(opened, page_file, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        page.locator("#text-0").scroll_into_view_if_needed()
        page.locator(".seg").first.click()
        page.locator("details.shown").first.evaluate("e => { e.open = true; }")
        page.evaluate(program)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        assert [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found["violations"]] == []


def test_a_weight_that_only_the_run_knows_is_no_weight_of_0(opened: object, tmp_path: Path) -> None:
    """A route whose weight no file tells is hatched and says so; one that is surely 0 says 0."""
    lines = [{"prompt": "p", "response": "one two", "reward": n, "correct": n == 1, "diagnosis": None} for n in (0, 1)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    spec = spec_of("rest when correct: nll(w=softmax(mean(entropy, over=row), over=group))\nrest: nll(w=reward)\n")
    found = preview(spec, compile_plan(spec, facts_of()), read_rollouts(tmp_path / "own.jsonl"))
    with page_of(opened, write_page(found, tmp_path / "page.html")) as page:
        assert page.locator(".route .now").all_inner_texts() == ["decided during the run", "w 0"]
        page.locator("#text-1").scroll_into_view_if_needed()
        page.locator(".seg.r0.maybe").wait_for()
        assert page.locator("#curves").inner_text().count("is decided during the run") == 1


def test_curves_are_told_apart_without_colours(opened: object, page_file: Path) -> None:
    """Each loss has dashes of its own: two that have the same weight are both seen."""
    with page_of(opened, page_file) as page:
        dashes = page.locator("#curves polyline").evaluate_all(
            "all => all.map((e) => e.getAttribute('stroke-dasharray'))"
        )
        assert len(dashes) == len(set(dashes)) == 4


def test_words_of_the_chart_can_be_read_on_a_narrow_screen(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file, viewport={"width": 390, "height": 800}) as page:
        heights = page.locator("#curves svg text").evaluate_all(
            "all => all.map((e) => e.getBoundingClientRect().height)"
        )
        assert min(heights) > 10


def test_what_has_the_focus_is_not_under_the_bar(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        page.evaluate("scrollTo(0, document.querySelectorAll('.rollout')[3].offsetTop)")
        page.locator("details.shown summary").nth(4).focus()
        for _ in range(4):
            page.keyboard.press("Shift+Tab")
            place = "document.activeElement.getBoundingClientRect().top"
            assert page.evaluate(place) >= page.evaluate(
                "document.querySelector('.bar').getBoundingClientRect().bottom"
            )


def test_the_legend_says_how_tokens_look(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        said = page.get_by_role("list", name="How tokens look").inner_text()
        for look in ("the darker, the larger the weight", "decided during the run", "trains nothing"):
            assert look in said


def test_coverage_is_told_against_the_cap(opened: object, page_file: Path) -> None:
    with page_of(opened, page_file) as page:
        said = page.get_by_role("img", name="error: ").get_attribute("aria-label")
        assert said == "error: 18% of a response on average, 22% at most, in 27 responses that have it; cap 25%"


def test_tokens_behind_emoji_are_whole(opened: object, tmp_path: Path) -> None:
    """A browser counts most emoji and mathematical letters as two characters, a file as one."""
    response = "\N{GRINNING FACE} so \N{MATHEMATICAL ITALIC SMALL X} = 1, done"
    line = {"prompt": "p", "response": response, "reward": 1, "spans": [{"label": "key", "start": 5, "end": 6}]}
    (tmp_path / "own.jsonl").write_text(json.dumps(line), encoding="utf-8")
    spec = spec_of("spans key(cap=50%)\nkey: nll()\nrest: grpo()\n")
    found = preview(spec, compile_plan(spec, facts_of()), read_rollouts(tmp_path / "own.jsonl"))
    with page_of(opened, write_page(found, tmp_path / "page.html")) as page:
        assert page.locator("details.shown summary").inner_text() == "Prompt", "the spec has no teacher"
        page.locator("#text-0").scroll_into_view_if_needed()
        assert page.locator("#text-0 .seg.r0").inner_text().strip() == "\N{MATHEMATICAL ITALIC SMALL X}"
        texts = page.evaluate(
            "rollout(0).starts.map((start, n) => rollout(0).response.slice(start, rollout(0).ends[n]))"
        )
        assert texts == [response[start:end] for start, end in found.file.rollouts[0].intervals]


def test_those_who_listen_hear_what_those_who_see_see(opened: object, page_file: Path) -> None:
    """Routes are items with their letters; a token's spans are spoken; Enter leads into the details, Escape back."""
    with page_of(opened, page_file) as page:
        routes = page.get_by_role("region", name="Routes").get_by_role("list").first
        assert routes.get_by_role("listitem").count() == 3
        assert routes.aria_snapshot().count("listitem: A error when wrong rkl(w=kl, per=sequence)") == 1
        row = row_with_an_error(page)
        page.focus(f"#text-{row}")
        page.keyboard.press("n")
        kind = page.evaluate(f"rollout({row}).spans[0][1]")
        assert f"error span, {kind}; route A, error when wrong" in page.locator("#spoken").inner_text()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "details"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == f"text-{row}"
        assert "with error spans" in page.locator("#filter").inner_text()
