"""Items and random filters for what adapters must answer as an index does."""

from __future__ import annotations

from hypothesis import strategies as st

from fgdeploy.retrieval import Item

_TEXTS = (
    *("owl", "Owl", "OWL", "öwl", "ÖWL", "5", "5.0", "05", "1.5", "-3", "1e3", "", " ", "%", "_"),
    *(
        "it's",
        'say "hi"',
        "a%b",
        "a_b",
        "a\\b",
        "[a]",
        "a*b",
        "a?b",
        "\N{BUG}",
        "z\N{BUG}x",
        "\uffff",
    ),
    *("null", "9223372036854775808", "line\nbreak", "tab\t", "ß", "İ", "owls and more owls"),
)
_IDS = (0, 1, 2, 3, 5, 7, 10, 100, 1 << 53, (1 << 53) + 1, 1 << 62)


def items(code: bytes = b"\0" * 8) -> list[Item]:
    """Return items whose labels, paths, contents and JSON are odd, or missing."""
    made = [
        Item(None, code, text, "", time="2026-01-31", json=None)
        for number, text in enumerate(_TEXTS)
    ]
    for number, text in enumerate(_TEXTS):
        day = f"20{20 + number % 7}-0{1 + number % 9}-01T00:00:00+00:00"
        label = None if number % 5 == 0 else _TEXTS[-number]
        sha256 = f"{number % 3:x}" * 64 if number % 4 else ""
        made.append(Item(f"/{text}/{number}", code, label, sha256, time=day, json='{"a": 1}'))
    ids = [*_IDS, *range(1000, 1000 + len(made) - len(_IDS))]
    return [
        Item(one.path, one.code, one.label, one.sha256, number, one.time, one.json)
        for number, one in zip(ids, made, strict=True)
    ]


_QUOTED = st.sampled_from(_TEXTS).map(lambda text: "'" + text.replace("'", "''") + "'")
_NUMBER = st.sampled_from(
    (
        *("0", "1", "2", "5", "-3", "1.5", "2.0", "1e3", "0x10", "9007199254740993", "1e19"),
        *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-1e999"),
        *("true", "+5", "- -2"),
    )
)
_VALUE = st.one_of(
    _QUOTED,
    _NUMBER,
    st.just("NULL"),
    st.sampled_from(("1 + 2 * 3", "7 / 2", "'a' || 'b'", "lower('OWL')")),
)
_COLUMN = st.sampled_from(
    (
        "id",
        "path",
        "label",
        "time",
        "sha256",
        "json",
        '"label"',
        "[id]",
        "LABEL",
        "`path`",
        "(label)",
    )
)
_APPLIED = st.sampled_from(
    (
        *("lower(label)", "upper(path)", "length(label)", "length(path)", "substr(path, 2)"),
        *("substr(label, 1, 2)", "instr(path, 'w')", "coalesce(label, 'none')"),
        *("ifnull(label, '')", "id % 3", "id % -2", "lower(substr(path, 2, 3))"),
        "length(coalesce(label, ''))",
    )
)
_TERM = st.one_of(_COLUMN, _COLUMN, _APPLIED)
_OPERATOR = st.sampled_from(("=", "==", "<>", "!=", "<", "<=", ">", ">=", "IS", "IS NOT"))
_NOT = st.sampled_from(("", "", "NOT "))
_PIECE = st.sampled_from(
    ("%", "_", "*", "?", "o", "O", "w", "l", "ö", "/", "5", "!", "!%", "!_", "[*]", "\\")
)
_PATTERN = st.lists(_PIECE, max_size=5).map("".join)

_ATOMS = st.one_of(
    st.builds("{} {} {}".format, _TERM, _OPERATOR, _VALUE),
    st.builds("{} {} {}".format, _VALUE, _OPERATOR, _TERM),
    st.builds("{} {} {}".format, _TERM, _OPERATOR, _TERM),
    st.builds(
        "{} {}".format, _TERM, st.sampled_from(("IS NULL", "IS NOT NULL", "ISNULL", "NOT NULL"))
    ),
    st.builds("{} {}BETWEEN {} AND {}".format, _TERM, _NOT, _VALUE, _VALUE),
    st.builds(
        lambda term, no, values: f"{term} {no}IN ({', '.join(values)})",
        _TERM,
        _NOT,
        st.lists(_VALUE, max_size=4),
    ),
    st.builds("{} {}LIKE '{}'".format, _TERM, _NOT, _PATTERN),
    st.builds("{} {}LIKE '{}' ESCAPE '!'".format, _TERM, _NOT, _PATTERN),
    st.builds("{} {}LIKE '{}' ESCAPE '%'".format, _TERM, _NOT, _PATTERN),
    st.builds("{} {}GLOB '{}'".format, _TERM, _NOT, _PATTERN),
    st.sampled_from(("id", "1", "0", "NULL", "'5'", "length(label)")),
)

EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.builds("({}) AND {}".format, inner, inner),
        st.builds("{} OR {}".format, inner, inner),
        st.builds("NOT {}".format, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=5,
)
