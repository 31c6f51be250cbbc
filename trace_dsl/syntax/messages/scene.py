"""What a message is made of: the place where reading stopped, what stands around it, and what belongs there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique
from functools import cached_property

from trace_dsl.syntax.machine import END, Obstacle, Token, words

_VALUE_STARTS = frozenset({"NAME", "NUMBER", "LPAR", "MINUS"})
_DECLARATIONS = frozenset({"SPANS", "TEACHER", "ADVANTAGE", "ROLLOUTS", "LET", "EXTENDS"})
KEYWORDS = _DECLARATIONS | {"WHEN", "AND", "OR", "NOT", "STEPS", "TOKENS"}
# What a person takes for a name, whatever the grammar takes it for.
WORDS = KEYWORDS | {"NAME"}


@unique
class Slot(Enum):
    """What belongs at a place of a statement. Every state of the parser is one of these."""

    STATEMENT = "the first word"
    LABEL = "a label of `spans` or of a route"
    AFTER_SPAN = "behind a label of `spans`"
    AFTER_LABEL = "behind a label of a route"
    NAME = "the name that is declared"
    EQUALS = "the = of a declaration"
    SOURCE = "what a declaration is given: self(...), group(...), policy(...)"
    AFTER_SOURCE = "behind self(...), group(...), policy(...)"
    PATH = "the path of `extends`"
    AFTER_PATH = "behind the path of `extends`"
    LOSS = "a loss of a route"
    AFTER_LOSS = "behind a loss"
    VALUE = "a value of an expression"
    AFTER_VALUE = "behind a value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to tell. `at` and `length` say what to underline; `opened_at` where an unclosed bracket stands."""

    message: str
    fix: str
    at: int
    length: int = 1
    opened_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """An open bracket; `function` is the name before it, "" for brackets around values."""

    at: int
    function: str


# Signs of other languages that are read as two words here, and shown as one.
_COMPOUND = ("===", "!==", "&&", "||", "**", "//", "->", "=>", ":=", "+=", "-=", "*=", "/=", "<<", ">>", "<>", "=<")


def shown(text: str) -> str:
    """A word as it is quoted in a message; a character that cannot be seen by its number."""
    return text if text.isprintable() and not text.isspace() else " ".join(f"U+{ord(c):04X}" for c in text)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An obstacle with what stands around it."""

    obstacle: Obstacle

    @property
    def found(self) -> str:
        return self.obstacle.found

    @property
    def kind(self) -> str:
        return self.obstacle.kind

    @property
    def taken(self) -> tuple[Token, ...]:
        return self.obstacle.taken

    @property
    def at_end(self) -> bool:
        return self.kind == END

    @property
    def is_word(self) -> bool:
        """Whether a name or a keyword was found."""
        return self.kind in WORDS

    @cached_property
    def written(self) -> str:
        """What was found as a person sees it: `&&`, `1x` and `'text'` are one word each."""
        rest = self.obstacle.text[self.obstacle.at :].partition("\n")[0]
        compound = next((sign for sign in _COMPOUND if rest.startswith(sign)), None)
        if compound is not None:
            return compound
        if self.kind == "NUMBER" and self.next.kind in WORDS and self.next.start == self.obstacle.at + len(self.found):
            return self.found + self.next.text
        if self.found in ("'", "`") and self.found in rest[1:]:
            return rest[: rest.index(self.found, 1) + 1]
        return self.found

    @property
    def quoted(self) -> str:
        """What was found, for a message."""
        return "the end of the line" if self.at_end else f"`{shown(self.written)}`"

    @property
    def previous(self) -> Token:
        """The word before; one of no kind at the start."""
        return self.taken[-1] if self.taken else Token("", "", 0, 0)

    @property
    def touches(self) -> bool:
        """Whether nothing stands between what was found and the word before it."""
        return bool(self.taken) and self.previous.end == self.obstacle.at

    @property
    def first(self) -> str:
        """The terminal of the statement's first word."""
        return self.taken[0].kind if self.taken else ""

    @cached_property
    def ahead(self) -> tuple[Token, ...]:
        """The words behind what was found."""
        return words(self.obstacle.text, self.obstacle.at + len(self.found))

    @property
    def next(self) -> Token:
        """The word behind what was found; one of no kind at the end."""
        end = len(self.obstacle.text)
        return self.ahead[0] if self.ahead else Token("", "", end, end)

    @property
    def is_dash(self) -> bool:
        """Whether this is the `-` of a name such as `key-token`."""
        tight = self.touches and self.next.start == self.obstacle.at + 1
        return self.kind == "MINUS" and tight and self.previous.kind in WORDS and self.next.kind in WORDS

    def begins(self, signs: str) -> bool:
        """Whether the text goes on with these signs, from what was found on."""
        return self.obstacle.text.startswith(signs, self.obstacle.at)

    @cached_property
    def open(self) -> tuple[Bracket, ...]:
        """The brackets that are open, outermost first."""
        found: list[Bracket] = []
        before = ""
        for token in self.taken:
            if token.kind == "LPAR":
                found.append(Bracket(at=token.start, function=before))
            elif token.kind == "RPAR":
                found.pop()
            before = token.text if token.kind == "NAME" else ""
        return tuple(found)

    @property
    def in_call(self) -> bool:
        """Whether the innermost bracket holds arguments."""
        return bool(self.open) and self.open[-1].function != ""

    def accepts(self, *kinds: str) -> bool:
        """Whether all of these terminals could stand here."""
        return self.obstacle.expected.issuperset(kinds)

    @property
    def colon_ahead(self) -> bool:
        """Whether a `:` outside brackets follows, so that what stands here belongs before the losses."""
        depth = len(self.open) + (self.kind == "LPAR")
        for token in self.ahead:
            depth += (token.kind == "LPAR") - (token.kind == "RPAR")
            if token.kind == "COLON" and depth <= 0:
                return True
        return False

    @property
    def header(self) -> str:
        """The route as it is written so far, without its losses."""
        return " ".join(self.obstacle.text[self.taken[0].start : self.previous.end].split())

    @cached_property
    def slot(self) -> Slot:
        """What belongs here."""
        kinds = [token.kind for token in self.taken]
        if not kinds:
            return Slot.STATEMENT
        if self.open or (self.first == "LET" and "EQUAL" in kinds) or self._in_predicate(kinds):
            return Slot.VALUE if self.accepts(*_VALUE_STARTS) else Slot.AFTER_VALUE
        last = kinds[-1]
        match self.first:
            case "EXTENDS":
                return Slot.PATH if last == "EXTENDS" else Slot.AFTER_PATH
            case "SPANS":
                return Slot.LABEL if last in ("SPANS", "COMMA") else Slot.AFTER_SPAN
            case "TEACHER" | "ADVANTAGE" | "ROLLOUTS" | "LET":
                if last == "EQUAL":
                    return Slot.SOURCE
                if "EQUAL" in kinds:
                    return Slot.AFTER_SOURCE
                return Slot.NAME if self.accepts("NAME") else Slot.EQUALS
            case _:
                pass
        if "COLON" in kinds:
            return Slot.LOSS if last in ("COLON", "PLUS") else Slot.AFTER_LOSS
        return Slot.LABEL if last == "VBAR" else Slot.AFTER_LABEL

    def _in_predicate(self, kinds: list[str]) -> bool:
        return "WHEN" in kinds and "COLON" not in kinds

    def dash(self) -> Advice:
        """Advice about a `-` in a name."""
        return self.say("names have no `-`", f"write `{self.previous.text}_{self.next.text}`")

    def say(self, message: str, fix: str, *, length: int | None = None) -> Advice:
        """Advice that underlines what was found, or so many characters from there on."""
        size = len(self.written) if length is None else length
        return Advice(message=message, fix=fix, at=self.obstacle.at, length=max(size, 1))

    def say_from_previous(self, message: str, fix: str) -> Advice:
        """Advice that underlines the word before and what was found: two signs that are one."""
        start = self.previous.start
        return Advice(message=message, fix=fix, at=start, length=self.obstacle.at + len(self.found) - start)
