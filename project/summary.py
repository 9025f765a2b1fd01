"""A summary of a text: those of its sentences that say most about it, in their order. No model, only counting."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

PARAGRAPH: Final = re.compile(r".+?(?:\n[ \t]*\n+|\Z)", re.DOTALL)
# Code, headings, tables, comments.
NO_PROSE: Final = re.compile(
    r"^ *```.*?^ *```|^ *(?:#|\||<!--)[^\n]*", re.DOTALL | re.MULTILINE
)  # code, headings, tables
LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
LIST_ITEM: Final = re.compile(r"^ *(?:[-*]|\d+\.) +", re.MULTILINE)
SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z])")
WORD: Final = re.compile(r"[a-z][a-z']{2,}")
FEWEST_WORDS: Final = 6  # sentences with fewer say little by themselves
# Words that every English text is full of, so that they tell nothing about one.
COMMON: Final = frozenset(
    WORD.findall(
        "the and for are but not you all any can had her was one our out has his how its may new now old see two way "
        "who did get let put say she too use that with have this will your from they know want been good much some "
        "time very when come here just like long make many more only over such take than them well were what which "
        "their there would about could other into then also does each must these those where while whom whose "
        "because before after again between both being under until during itself"
    )
)


@dataclass(frozen=True)
class Summary:
    """`summary` is at most as long as was asked for; `sentences` and `words` count the prose of the whole file."""

    file: str
    sentences: int
    words: int
    summary: str


def names() -> list[str]:
    """The texts of this repository: its documentation and licence."""
    found = [*ROOT.glob("*.md"), ROOT / "LICENSE", *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def paragraphs(text: str) -> list[str]:
    """The text in pieces that end where a paragraph does; joined they are the text again."""
    return PARAGRAPH.findall(text)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text in Markdown, in one line each, without marks."""
    for paragraph in LIST_ITEM.sub("\n", NO_PROSE.sub("\n", text)).split("\n\n"):
        plain = " ".join(LINK.sub(r"\1", paragraph).replace("*", "").replace("`", "").split())
        yield from filter(None, SENTENCE_END.split(plain))


def summarise(file: str, text: str, length: int) -> Summary:
    """The `length` sentences whose words are most frequent, on the average, in the whole text."""
    found = list(sentences(text))
    words_of = [[word for word in WORD.findall(sentence.lower()) if word not in COMMON] for sentence in found]
    frequency = Counter(word for words in words_of for word in words)

    def weight(place: int) -> float:
        words = set(words_of[place])
        return sum(frequency[word] for word in words) / len(words) if len(words) >= FEWEST_WORDS else 0.0

    best = sorted(sorted(range(len(found)), key=weight, reverse=True)[:length])
    return Summary(
        file=file,
        sentences=len(found),
        words=sum(len(sentence.split()) for sentence in found),
        summary=" ".join(found[place] for place in best),
    )
