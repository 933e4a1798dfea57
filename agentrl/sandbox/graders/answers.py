"""Short answers to questions: exact match, F1 over tokens, and containment, without the known holes.

The usual normaliser (SQuAD, HotpotQA) drops all punctuation and articles, so that -5 equals 5, 1.5 equals 15,
C++ equals C#, and "The The" equals nothing. Ours keeps what tells answers apart: signs and points of numbers,
+ and # inside words; it unifies Unicode (NFKC, quotes, dashes); and a text that is only articles keeps them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.sandbox.result import Grade, Verdict, is_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_CHARACTERS = 10_000
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202a\u202b\u202c\u202d\u202e"))
_TOKEN = re.compile(
    r"""(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)%?  # numbers, with sign and per cent
    | (?<![\w.])-?\.\d+(?!\w)%?
    | (?:\w\.){2,}               # U.S., J.R.R.
    | \w+(?:['’]\w+)*[+\#]*      # words; C++, C#, O'Brien
    """,
    re.VERBOSE,
)
_STRUCK = re.compile(r"(?<!~)~~[^~]+~~(?!~)")
_ARTICLES = {"a", "an", "the"}
_CLOSED = {"yes", "no", "noanswer"}
_ALTERNATIVE = re.compile(r"\s+(?:or|and/or)\s+|[,;/|\n]")
_OR_SO = re.compile(r"\s+or\s+so\b\W*$", re.IGNORECASE)
_COPULAS = {"is", "was", "are", "were", "be", "been"}
_DENIALS = """
not no never neither nor none nobody nothing nowhere cannot isnt wasnt arent werent dont doesnt didnt cant
couldnt wont wouldnt shouldnt aint hardly barely scarcely rarely seldom unlikely impossible doubt doubtful
except unless if wrong false incorrect untrue mistaken mistake error lie myth instead rather opposite
"""
_NEGATIONS = frozenset(_DENIALS.split())
# What may stand beside an answer without being one.
_PLAIN = """
it this that thats they he she there i we you my our its his her their who which what where when
of in on at by to from for as with during has had have did does do would should must
answer answers final correct right result response think believe guess say said know suppose
so therefore thus hence then about around approximately roughly probably likely perhaps maybe
actually indeed just called named titled known born died lives lived located found founded
written directed made created released published played held built based set won began
"""
_LEADING = "a an the this that what which who where his her its their my our your"
_DETERMINERS = frozenset(_LEADING.split())
_PRONOUNS = {"it", "this", "that", "he", "she", "they", "there", "which", "who"}
_ANSWERS = {"answer", "answers", "response", "result", "guess", "choice", "solution"}
_RELATIONS = {"of", "in", "at", "on", "from", "to", "for", "by", "with"}
_FRAME = frozenset(_PLAIN.split()) | _ARTICLES | _COPULAS


def tokens(text: str) -> tuple[str, ...]:
    """Return the tokens that two answers are compared by.

    >>> tokens("The  Beatles’ album, 1.50%")
    ('beatles', 'album', '1.5%')
    >>> tokens("-5"), tokens("U.S."), tokens("C++"), tokens("The The"), tokens("~~Rome~~ Paris")
    (('-5',), ('us',), ('c++',), ('the', 'the'), ('paris',))
    """
    found = tuple(_canonical(item) for item in _TOKEN.findall(_unified(text).casefold()))
    words = tuple(item for item in found if item not in _ARTICLES)
    return words or found


def _unified(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).translate(_DASHES | _INVISIBLE)
    return _STRUCK.sub(" ", plain)


def _canonical(token: str) -> str:
    if not any(character.isdigit() for character in token) or any(map(str.isalpha, token)):
        return re.sub(r"['’.]", "", token)
    number, percent = token.replace(",", "").removesuffix("%"), "%" * token.endswith("%")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, _, part = digits.partition(".")
    part = part.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{sign}{whole}{'.' + part if part else ''}{percent}"


def exact_match(answer: str, gold: str) -> bool:
    """Say whether two answers have the same tokens; texts without any are compared as they are.

    >>> exact_match("the Eiffel Tower.", "Eiffel tower"), exact_match("1.5", "15"), exact_match("", "!!!")
    (True, False, False)
    """
    ours, theirs = tokens(answer), tokens(gold)
    if not ours or not theirs:
        return answer.strip() == gold.strip() and bool(gold.strip())
    return ours == theirs


def f1(answer: str, gold: str) -> float:
    """Return the F1 of two answers as bags of tokens; 0 where one is yes or no and they differ.

    >>> f1("Paris, France", "Paris")
    0.6666666666666666
    >>> f1("no, it was Ann", "no")
    0.0
    """
    ours, theirs = tokens(answer), tokens(gold)
    if exact_match(answer, gold):
        return 1.0
    if not ours or not theirs or _closed(ours) or _closed(theirs):
        return 0.0
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def _closed(found: Sequence[str]) -> bool:
    return "".join(found) in _CLOSED


def contains(answer: str, gold: str, *, extra: int = 8) -> bool:
    """Say whether an answer says the gold one, in whole tokens and without offering others.

    Golds of one letter, yes and no need an exact match. So does an answer with more than `extra` tokens
    besides, one with a word of denial or a list of alternatives, and one where the gold stands beside
    anything but a plain frame: "WHAT is GOLD", "GOLD is a so", "GOLD is the so of NAME", or words such as "I
    think". One place of a sentence is its answer, so that "Ann is Bob" cannot be right for both, and only a
    subject of a few forms leads to it, so that "They swear it is Paris" says nothing of Paris. These are
    rules of form: a denial in words that look like any other ("the last guess is Paris", "Paris is a trap")
    is not seen.

    >>> contains("It is Paris", "Paris"), contains("Paris or Rome or Bonn", "Paris"), contains("2010", "1")
    (True, False, False)
    >>> [contains("Paris is the capital of France", gold) for gold in ("Paris", "France")]
    [True, False]
    >>> contains("Paris & Rome", "Paris"), contains("It is not Paris", "Paris"), contains("42 or so", "42")
    (False, False, True)
    """
    ours, theirs = tokens(answer), tokens(gold)
    if exact_match(answer, gold):
        return True
    one_letter = sum(map(len, theirs)) < 2 and not "".join(theirs).isdigit()
    if one_letter or _closed(theirs):
        return False
    if len(ours) > len(theirs) + extra:
        return False
    if _NEGATIONS & set(ours) - set(theirs):
        return False
    answer = _OR_SO.sub("", answer)
    if _ALTERNATIVE.search(answer) and not _ALTERNATIVE.search(gold):
        return False
    return any(_framed(place, theirs) for place in _places(answer))


def _framed(place: Sequence[str], gold: tuple[str, ...]) -> bool:
    return any(
        tuple(place[start : start + len(gold)]) == gold
        and _FRAME.issuperset([*place[:start], *place[start + len(gold) :]])
        for start in range(len(place))
    )


def _places(answer: str) -> list[list[str]]:
    """Return where a sentence may say its answer: as a whole, behind a copula, or in a name before one."""
    said = [(word, _canonical(word.casefold())) for word in _TOKEN.findall(_unified(answer))]
    copulas = [number for number, (_, token) in enumerate(said) if token in _COPULAS]
    places = [_plain(said)]
    if not copulas:
        return places
    first = copulas[0]
    before, behind = said[:first], said[first + 1 :]
    others = [_is_name(word) for word, token in before if token not in _FRAME]
    names = bool(others) and all(others)
    if names and _explains(behind):
        return [*places, _plain(before)]
    if not _is_subject(before) or (names and _judges(behind)):
        return places
    reached = [number for number in copulas if _FRAME.issuperset(_plain(said[first:number]))]
    return places + [_plain(said[number + 1 :]) for number in reached]


def _plain(said: Sequence[tuple[str, str]]) -> list[str]:
    return [token for _, token in said if token not in _ARTICLES]


def _is_subject(before: Sequence[tuple[str, str]]) -> bool:
    """Say whether words before a copula name what it speaks of: "it", "the capital of France", "Ann Lee".

    What comes before a pronoun is a clause of its own, which may deny all that follows.
    """
    plain = [token for _, token in before]
    if _FRAME.issuperset(plain):
        return True
    if plain[-1] in _PRONOUNS:
        return False
    names = all(_is_name(word) for word, token in before if token not in _FRAME)
    return names or plain[0] in _DETERMINERS


def _judges(behind: Sequence[tuple[str, str]]) -> bool:
    """Say whether words behind a copula begin neither with a name nor with a word of the frame: "wrong"."""
    return bool(behind) and not _is_name(behind[0][0]) and behind[0][1] not in _FRAME


def _explains(behind: Sequence[tuple[str, str]]) -> bool:
    """Say whether words behind a copula only explain the name before it, as "the capital of France" does.

    Otherwise they may be an answer themselves, and a sentence has one place for it; or, as an adjective
    does, they may judge it.
    """
    plain = [token for _, token in behind]
    if not plain or _judges(behind) or (_ANSWERS & set(plain) and not _FRAME.issuperset(plain)):
        return False
    rest = [(word, token) for word, token in behind if token not in _ARTICLES]
    names = [_is_name(word) for word, _ in rest]
    if not any(names):
        return True
    starts = [number for number, name in enumerate(names) if name and not names[max(0, number - 1)]]
    return (
        not names[0]
        and rest[0][1] not in _FRAME
        and all(rest[number - 1][1] in _RELATIONS for number in starts)
        and not _COPULAS & set(plain)
    )


def _is_name(word: str) -> bool:
    return word[:1].isupper() or any(map(str.isdigit, word))


def weak_golds(golds: Iterable[str]) -> list[str]:
    """Name the golds that the usual normaliser would turn into nothing, for a look at the data set.

    >>> weak_golds(["Paris", "The The", "!!!", ""])
    ["'The The' is only articles", "'!!!' has no words", "'' has no words"]
    """
    found = [(gold, tokens(gold)) for gold in golds]
    return [
        f"{gold!r} has no words" if not words else f"{gold!r} is only articles"
        for gold, words in found
        if set(words) <= _ARTICLES
    ]


def _texts(golds: object) -> list[str] | None:
    items = golds if isinstance(golds, list | tuple | set | frozenset) else [golds]
    texts = [item for item in items if isinstance(item, str)]
    return texts if len(texts) == len(items) else None


@dataclass(frozen=True)
class AnswerGrader:
    """Grades an answer by the best of its golds.

    Attributes:
        partial: the score of a wrong answer is its F1 instead of 0.
        contained: an answer that says the gold in a sentence is correct; see `contains`.

    >>> AnswerGrader()("Ann", ["Bob", "ann"]).verdict
    <Verdict.CORRECT: 'correct'>
    >>> AnswerGrader(partial=True)("Ann Lee", ["Ann"])
    Grade(verdict=<Verdict.WRONG: 'wrong'>, score=0.6666666666666666, message="'Ann Lee' is not 'Ann'")
    """

    partial: bool = False
    contained: bool = False

    def __call__(self, answer: str, golds: str | Sequence[str]) -> Grade:
        """Grade; an answer of over 10,000 characters is wrong, a task without gold is the data's error."""
        known = _texts(golds)
        if known is None:
            return Grade(Verdict.GRADER_ERROR, message=f"golds are texts; got {golds!r:.100}")
        if not is_text(answer):
            return Grade(Verdict.UNPARSABLE, message=f"an answer is a text; got {type(answer).__name__}")
        if not any(gold.strip() for gold in known):
            return Grade(Verdict.GRADER_ERROR, message="the task has no gold answer")
        if len(answer) > MAX_CHARACTERS:
            return Grade(Verdict.WRONG, message=f"the answer is longer than {MAX_CHARACTERS:,} characters")
        said = contains if self.contained else exact_match
        if any(said(answer, gold) for gold in known):
            return Grade(Verdict.CORRECT, 1.0)
        best = max(f1(answer, gold) for gold in known) if self.partial else 0.0
        differs = "does not say" if self.contained else "is not"
        shown = " or ".join(f"{gold!r:.80}" for gold in known[:4]) + " or another" * (len(known) > 4)
        return Grade(Verdict.WRONG, best, f"{answer!r:.80} {differs} {shown}")
