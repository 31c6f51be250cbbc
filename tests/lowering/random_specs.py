"""Random specs, as text, over most of what the engine runs.

Numbers that are compared with sums and means are chosen so that a comparison seldom depends on rounding.
"""

from __future__ import annotations

import random

from tests.lowering.cases import CONTEXTS, LABELS

_RANKS = ("constant", "step", "group", "row", "token")
_SIGNALS = {
    "step": ["step"],
    "group": ["group_size"],
    "row": ["reward", "len", "A"],
    "token": ["pos", "old_logp", "logp", "entropy", "ratio"],
}
_TEACHER_SIGNALS = ("gap", "gap", "teacher_logp", "teacher_entropy")
_ODD = ("0.33", "-0.71", "1.13", "-2.29", "0.013", "1.57")  # no multiples of 1/64, nor means of a few of them
_SCOPES = {"group": ["batch"], "row": ["group", "batch"], "token": ["row", "group", "batch"]}


def random_spec(rng: random.Random) -> str:
    """The text of a spec over most of what the engine runs."""
    return _Writer(rng).spec()


class _Writer:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lets: list[str] = []
        self.flags: list[str] = []
        self.teachers: list[str] = []
        self.sees = {"teacher": "diagnosis"}

    def spec(self) -> str:
        rng = self.rng
        lines = []
        if rng.random() < 0.7:
            caps = [rng.choice(("(cap=25%)", "(cap=50%)", "(cap=0.29)", "(cap=100%)", "")) for _ in LABELS]
            lines.append("spans " + ", ".join(label + cap for label, cap in zip(LABELS, caps, strict=True)))
        if rng.random() < 0.8:
            self.teachers = rng.sample(["teacher", "other"], rng.randint(1, 2))
            if len(self.teachers) == 2:
                self.teachers = ["teacher", "other"]
            for name in self.teachers:
                update = rng.choice(("sync=10", "ema=0.05", "frozen"))
                sees = rng.choice(("", "nothing", "mismatched", "diagnosis", "solution", "sibling"))
                self.sees[name] = sees
                sees = f", sees={sees}" if sees else ""
                lines.append(f"teacher {name} = self({update}{sees})".replace("teacher teacher", "teacher"))
        if rng.random() < 0.6:
            lines.append(
                "advantage = "
                + rng.choice(("group()", "group(scale=none)", "group(center=mean, scale=std)", "loo", "none"))
            )
        for index in range(rng.randint(0, 2)):
            value = self.schedule() if rng.random() < 0.5 else self.number(2)
            lines.append(f"let v{index} = {value}")
            self.lets.append(f"v{index}")
        for index in range(rng.randint(0, 2)):
            lines.append(f"let p{index} = {self.latch() if rng.random() < 0.6 else self.predicate(1)}")
            self.flags.append(f"p{index}")
        if rng.random() < 0.3:
            lines.append(self.guarded_by_step())
        for _ in range(rng.randint(1, 3)):
            selector = rng.choice(("key", "error", "key | error", "rest"))
            lines.append(f"{selector} when {self.predicate(2)}: {self.losses()}")
        if rng.random() < 0.5:
            lines.append(f"{rng.choice(('key', 'error | key'))}: {self.losses()}")
        if rng.random() < 0.8:
            lines.append(f"rest: {self.losses()}")
        return "\n".join(lines) + "\n"

    def guarded_by_step(self) -> str:
        """A route whose weight and advantage have a value only at the steps that its predicate lets it take."""
        rng = self.rng
        last = rng.choice((0, 10, 24))
        away = f"(step - {last})"
        guard = rng.choice((f"step > {last}", f"(step > {last} and {self.predicate(1)})", f"not step <= {last}"))
        if rng.random() < 0.3:
            guard = f"({guard} and 1/{away} {rng.choice(('<', '>'))} 0.13)"
        losses = [
            f"nll(w={self.number(1)}/{away})",
            f"pg(adv={self.token(1)}/{away}, w={self.number(1)})",
            f"entropy(w=where(correct, 1, 0)*(1/{away}))",
            f"nll(w=1/{away})",
            f"nll(w=where(step > {last} or correct, {self.leaf()}, 1))",
        ]
        return f"{rng.choice(('key', 'rest'))} when {guard}: {' + '.join(rng.sample(losses, 2))}"

    def losses(self) -> str:
        if self.rng.random() < 0.1:
            return "none"
        return " + ".join(self.loss() for _ in range(self.rng.randint(1, 3)))

    def loss(self) -> str:
        rng = self.rng
        per = rng.choice(("", "per=sequence", "per=token", "per=selected", "per=const(7)"))
        kind = rng.choice(("fkl", "rkl", "jsd", "grpo", "grpo", "pg", "nll", "entropy"))
        arguments = ["0.3"] if kind == "jsd" else []
        if kind == "pg":
            advantage = rng.choice((self.number(2), self.token(2), f"{self.token(1)} - {self.leaf()}"))
            arguments.append(f"adv={advantage}")
        if kind in ("grpo", "pg") and rng.random() < 0.7:
            arguments.append(rng.choice(("clip=(0.2, 0.28)", "clip=0.1", "clip=(0.2, 0.28), dual=3")))
        if kind in ("fkl", "rkl", "jsd") and self.teachers and "teacher" not in self.teachers:
            arguments.append(f"teacher={self.teachers[0]}")
        elif kind in ("fkl", "rkl", "jsd") and self.teachers and rng.random() < 0.5:
            arguments.append(f"teacher={rng.choice(self.teachers)}")
        roll = rng.random()
        if roll < 0.3:
            arguments.append(f"w={self.constant()}, {self.schedule_arguments()}")
        elif roll < 0.8:
            arguments.append(f"w={self.number(2)}")
        return f"{kind}({', '.join([*arguments, *([per] if per else [])])})"

    def constant(self) -> str:
        return self.rng.choice(("0.5", "1", "2", "0.25", "0.3", "3"))

    def schedule(self) -> str:
        return f"schedule({self.constant()}, {self.schedule_arguments()})"

    def schedule_arguments(self) -> str:
        """In one unit: tokens throughout, or steps and shares of the run mixed."""
        rng = self.rng
        if rng.random() < 0.25:
            units = ("500 tokens", "1e3 tokens", "2000 tokens")
            parts = [f"anneal={self.shape()}({rng.choice(units)})"]
        else:
            units = ("0", "5", "10", "7 steps", "10%", "2.5%", "7%", "1 step")
            parts = [f"anneal={self.shape()}" + rng.choice(("", "(30)", "(40%)", "(14%)", "(13 steps)"))]
        if rng.random() < 0.15:
            parts = [f"warmup={rng.choice(units)}"]
        present = {part.partition("=")[0] for part in parts}
        parts += [
            f"{name}={rng.choice(units)}"
            for name in ("start", "ramp", "warmup")
            if name not in present and rng.random() < 0.5
        ]
        if rng.random() < 0.4 and "anneal" in present:
            parts.append(f"floor={rng.choice(('0.1', '0', '1.5'))}")
        return ", ".join(parts)

    def shape(self) -> str:
        return self.rng.choice(("linear", "cos", "exp", "step"))

    def number(self, depth: int) -> str:
        """A number of any rank that stays finite."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.25:
            return self.leaf()
        a, b = self.number(depth - 1), self.leaf()
        forms = [
            lambda: f"({a} + {b})",
            lambda: f"({a} - {b})",
            lambda: f"{a} * {b}",
            lambda: f"{a} / (1 + abs({b}))",
            lambda: f"-({a})",
            lambda: f"exp(clip({a}, -2, 2))",
            lambda: f"log(1 + abs({a}))",
            lambda: f"sqrt(abs({a}))",
            lambda: f"sign({a})",
            lambda: f"sigmoid({a})",
            lambda: f"softplus({a})",
            lambda: f"min({a}, {b}, 1)",
            lambda: f"max({a}, {b})",
            lambda: f"where({self.predicate(depth - 1)}, {a}, {b})",
            lambda: f"where(step > 10, {a}/(step - 10), {b})",
            lambda: self.token(depth),
            self.reduction,
            self.reduction,
        ]
        return rng.choice(forms)()

    def leaf(self) -> str:
        rng = self.rng
        choices = [self.constant(), self.signal(rng.choice(_RANKS[1:]))]
        if self.lets:
            choices.append(rng.choice(self.lets))
        return rng.choice(choices)

    def signal(self, rank: str) -> str:
        if rank == "token" and self.rng.random() < 0.4:
            return self.teacher_signal()
        return self.rng.choice(_SIGNALS[rank])

    def teacher_signal(self) -> str:
        """Mostly where the teacher has its context; elsewhere what a teacher says is not a number."""
        rng = self.rng
        name = rng.choice(self.teachers or ["teacher"])
        by_default = not self.teachers or name == "teacher" or len(self.teachers) == 1
        signal = rng.choice(_TEACHER_SIGNALS)
        text = signal if by_default and (not self.teachers or rng.random() < 0.6) else f"{signal}({name})"
        if self.sees[name] in CONTEXTS and rng.random() < 0.85:
            return f"where(has({self.sees[name]}), {text}, {rng.choice(_SIGNALS['token'])})"
        return text

    def token(self, depth: int) -> str:
        """A number of rank token: a signal, or a scan along a response."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.3:
            return self.signal("token")
        inner = self.token(depth - 1)
        return rng.choice(
            (
                f"cumcount({self.token_flag(depth - 1)})",
                f"window_min({inner}, {rng.choice((1, 2, 3, 20))})",
                f"window_mean({inner}, {rng.choice((1, 2, 3, 20))})",
                f"reward_to_go({inner}, {rng.choice(('0', '0.5', '0.9', '1', '95%'))})",
                f"where({self.token_flag(depth - 1)}, {inner}, {self.signal('token')})",
                f"clip({inner}, -1, 1.5)",
                f"({inner} - {self.signal('token')})",
                f"({inner} - mean({inner}, over=row))",
            )
        )

    def token_flag(self, depth: int) -> str:
        """A predicate of rank token."""
        rng = self.rng
        flags = [
            f"{self.token(depth)} {rng.choice(('<', '>'))} {rng.choice(_ODD)}",
            f"{rng.choice(('entropy', 'logp', 'gap(NAME)'))} {rng.choice(('<', '<=', '>', '>=', '=='))} 0".replace(
                "gap(NAME)", self.teacher_signal()
            ),
            f"source {rng.choice(('==', '!='))} {rng.choice(('tool', 'model'))}",
            f"top({self.token(depth)}, {rng.choice(('20%', '50%'))}, over={rng.choice(_SCOPES['token'])})",
        ]
        if depth > 0:
            flags += [f"until({self.token_flag(depth - 1)})"] * 2
            flags += [f"({self.token_flag(depth - 1)} {rng.choice(('and', 'or'))} {self.flag('row')})"]
        return rng.choice(flags)

    def latch(self) -> str:
        return f"latch({self.step_flag()}, {self.step_flag()})"

    def step_flag(self) -> str:
        """A predicate of rank step, from what is measured on a batch."""
        rng = self.rng
        operator = rng.choice(("<", ">"))
        return rng.choice(
            (
                f"mean({self.token(1)}, over=batch) {operator} {rng.choice(_ODD)}",
                f"quantile({self.token(0)}, 80%, over=batch) {operator} {rng.choice(_ODD)}",
                f"mean(reward, over=batch) {operator} {rng.choice(_ODD)}",
                f"max(group_size, over=batch) {operator} 2",
                f"mean(mean({self.token(0)}, over=row), over=batch) {operator} {rng.choice(_ODD)}",
                f"step {operator} {rng.choice(('0', '10', '24'))}",
                f"not (mean(len, over=batch) {operator} 3.7)",
            )
        )

    def reduction(self) -> str:
        """A reduction of something whose rank is known, so that its scope has something to run over."""
        rng = self.rng
        rank = rng.choice(("group", "row", "row", "token", "token"))
        inner = self.token(2) if rank == "token" else rng.choice(_SIGNALS[rank])
        if rank == "row" and rng.random() < 0.3:
            inner = f"{rng.choice(('mean', 'max', 'sum'))}({self.token(1)}, over=row)"
        if rng.random() < 0.3:
            inner = f"where({self.flag(rank)}, {inner}, {self.constant()})"
        scope = rng.choice(_SCOPES[rank])
        if "A" in inner:  # advantages add up to zero, and what is left of such a sum is rounding
            return f"max({inner}, over={scope})"
        return rng.choice(
            (
                f"mean({inner}, over={scope})",
                f"max({inner}, over={scope})",
                f"sum({inner}, over={scope})",
                f"quantile({inner}, {rng.choice(('0.5', '80%', '0', '1'))}, over={scope})",
                f"softmax({inner}, over={scope})",
            )
        )

    def flag(self, rank: str) -> str:
        """A predicate of at most a rank."""
        flags = ["all_correct", "all_wrong", "mixed"]
        if rank in ("row", "token"):
            flags += ["correct", "wrong", *(f"has({name})" for name in CONTEXTS)]
        return self.rng.choice(flags)

    def predicate(self, depth: int) -> str:
        rng = self.rng
        if self.flags and rng.random() < 0.25:
            return rng.choice(self.flags)
        if depth > 0 and rng.random() < 0.4:
            a, b = self.predicate(depth - 1), self.predicate(depth - 1)
            return rng.choice((f"({a} and {b})", f"({a} or {b})", f"not ({a})"))
        operator = rng.choice(("<", "<=", ">", ">=", "==", "!="))
        rank = rng.choice(("row", "token"))
        ranked = rng.choice(_SIGNALS["row"]) if rank == "row" else self.token(1)
        top = f"top({ranked}, {rng.choice(('20%', '50%', '0.3'))}, over={rng.choice(_SCOPES[rank])})"
        return rng.choice(
            (
                self.flag("row"),
                self.flag("row"),
                f"reward {operator} {rng.choice(('0', '0.5', '0.25', '1'))}",
                f"len {operator} {rng.choice(('0', '3', '7'))}",
                f"pos {operator} {rng.choice(('0', '2', '5'))}",
                f"step {operator} {rng.choice(('0', '10', '24'))}",
                f"source {rng.choice(('==', '!='))} {rng.choice(('tool', 'model'))}",
                f"{self.number(depth)} {rng.choice(('<', '>'))} {self.number(0)}",
                top,
                self.token_flag(depth),
                self.token_flag(depth),
                self.latch(),
                f"(step > 0 and {rng.choice(('1', 'reward', 'pos'))}/step {operator} {rng.choice(_ODD)})",
            )
        )
