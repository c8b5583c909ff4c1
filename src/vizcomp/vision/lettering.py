"""Text that was read: how two readings differ, by words and by characters."""

from __future__ import annotations

import collections
import dataclasses
import functools
import operator
import unicodedata
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Readings:
    """How a reading stands to another.

    Attributes:
        error_rate: the character error rate: insertions, deletions and substitutions for each
            character of the reference. It can be above 1; without a character in the reference it
            is 0 or 1.
        matched, reference, found: words.
        odd_reference, odd_found: the lines, by index, that have a word that the other reading
            lacks.
    """

    error_rate: float
    matched: int
    reference: int
    found: int
    odd_reference: tuple[int, ...] = ()
    odd_found: tuple[int, ...] = ()


def compared(reference: Sequence[str], answer: Sequence[str]) -> Readings:
    """Compares the words of lines; where they stand does not count, since lines are split and
    joined at will.

    Words that both have cancel out, each as often as both have it. What is left of either, in its
    order, makes the errors.
    """
    mine, theirs = ([_words(line) for line in lines] for lines in (reference, answer))
    counts = [
        collections.Counter(word for line in lines for word in line) for lines in (mine, theirs)
    ]
    both = counts[0] & counts[1]
    (rest, odd_reference), (other_rest, odd_found) = _left(mine, both), _left(theirs, both)
    characters = sum(len(word) for line in mine for word in line)
    errors = edit_distance(" ".join(rest), " ".join(other_rest))
    rate = errors / characters if characters else float(errors > 0)
    return Readings(
        rate, both.total(), counts[0].total(), counts[1].total(), odd_reference, odd_found
    )


def common_words(readings: Sequence[Sequence[str]]) -> list[str]:
    """The words that all readings have, each as often as all have it."""
    counts = [
        collections.Counter(word for line in lines for word in _words(line)) for lines in readings
    ]
    if not counts:
        return []
    return list(functools.reduce(operator.and_, counts).elements())


def _words(line: str) -> list[str]:
    return unicodedata.normalize("NFKC", line).split()


def _left(
    lines: Sequence[Sequence[str]], both: collections.Counter[str]
) -> tuple[list[str], tuple[int, ...]]:
    """The words that are not among `both`, and the lines that have one."""
    free = both.copy()
    words: list[str] = []
    odd = []
    for at, line in enumerate(lines):
        before = len(words)
        for word in line:
            if free[word] > 0:
                free[word] -= 1
            else:
                words.append(word)
        if len(words) > before:
            odd.append(at)
    return words, tuple(odd)


def edit_distance(one: str, other: str) -> int:
    """The fewest insertions, deletions and substitutions that turn one text into the other
    (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
