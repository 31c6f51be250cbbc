"""Colours for `.trace` specs: a pygments lexer whose words are the tables of `trace_dsl.vocabulary`."""

from __future__ import annotations

from pygments.lexer import RegexLexer, bygroups, default, include, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Whitespace

from trace_dsl.model import REST
from trace_dsl.vocabulary import FUNCTIONS, LOSSES, NO_LOSS, ROWS, SIGNALS, SOURCES, STATEMENTS

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_LABEL = rf"(?!when\b){_NAME}"
_STARTS = r"(?=[ \t]*[=\"]|[ \t]+(?!when\b)[A-Za-z_])"  # what makes it a statement's word and no label
_CALLED = r"(?=[ \t]*\()"


class TraceLexer(RegexLexer):
    """Specs as they are written, right or wrong: a name that is no word of the language stays plain.

    A statement's word counts where a statement starts, so that a label may have it too; `root` is the start of a
    line, `selector` the labels of a route, `line` the rest of a line and `brackets` what may go over line ends.
    """

    name = "trace"
    aliases = ("trace",)
    filenames = ("*.trace",)

    tokens = {  # noqa: RUF012 - pygments reads the table from the class
        "root": [
            (r"\s+", Whitespace),
            include("comments"),
            (words(tuple(STATEMENTS), suffix=_STARTS), Keyword.Declaration, "line"),
            (rf"(?={_NAME}[ \t]*(?:\||:|when\b))", bygroups(), "selector"),
            default("line"),
        ],
        "selector": [
            (r"[ \t]+", Whitespace),
            (r"\|", Operator),
            (rf"{REST}\b", Keyword.Reserved),
            (_LABEL, Name.Label),
            default(("#pop", "line")),
        ],
        "line": [
            (r"\n", Whitespace, "#pop"),
            include("values"),
        ],
        "brackets": [
            (r"\n", Whitespace),
            (r"\)", Punctuation, "#pop"),
            (rf"({_NAME})([ \t]*)(=)(?!=)", bygroups(Name.Attribute, Whitespace, Operator)),
            include("values"),
        ],
        "comments": [
            (r"#[ \t]*trace[ \t]*:[^\n]*", Comment.Special),
            (r"#[^\n]*", Comment.Single),
        ],
        "values": [
            (r"[ \t\r]+", Whitespace),
            include("comments"),
            (r'"[^"\n]*"', String),
            (r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?:%|[ \t]+(?:steps?|tokens?)\b)?", Number),
            (r"\(", Punctuation, "brackets"),
            (r"[),:]", Punctuation),
            (r"when\b", Keyword),
            (r"(?:and|or|not)\b", Operator.Word),
            (r"==|!=|<=|>=|[-+*/<>=|]", Operator),
            (words(tuple(LOSSES), suffix=r"\b" + _CALLED), Name.Function),
            (words(FUNCTIONS, suffix=r"\b" + _CALLED), Name.Builtin),
            (words((*SIGNALS, ROWS), suffix=r"\b"), Name.Variable),
            (words((NO_LOSS, *SOURCES), suffix=r"\b"), Name.Constant),
            (_NAME, Name),
            (r".", Name),
        ],
    }
