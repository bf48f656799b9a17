"""Wu-Palmer similarity of nouns from WordNet's own database files (``index.noun``, ``data.noun``, ``noun.exc``)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from unireel.errors import UserError

ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)
"""WordNet's rules of detachment for nouns."""


class WordNet:
    """The nouns of a WordNet database: senses of words, and what each sense is a kind of."""

    def __init__(self, folder: Path) -> None:
        """Read the files (a second or two).

        Args:
            folder: the ``dict`` folder of a WordNet release 2.1 to 3.1.

        Raises:
            UserError: a file is missing or damaged.
        """
        try:
            self._senses = {
                fields[0]: [int(each) for each in fields[-int(fields[2]) :]]
                for line in _lines(folder / "index.noun")
                if (fields := line.split())
            }
            self._parents = dict(map(_hypernyms, _lines(folder / "data.noun")))
            exceptions = folder / "noun.exc"
            self._exceptions = {
                fields[0]: fields[1:]
                for line in (_lines(exceptions) if exceptions.exists() else [])
                if (fields := line.split())
            }
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{folder} does not hold WordNet's index.noun and data.noun: {error}") from None
        self.similarity = cache(self._similarity)
        self._depth = cache(self._longest_way_up)
        self._shallow = cache(self._shortest_way_up)

    def senses(self, word: str) -> list[int]:
        """The noun senses of a word in any number, by their offsets."""
        return [sense for form in self._forms(word.lower().replace(" ", "_")) for sense in self._senses[form]]

    def _forms(self, word: str) -> list[str]:
        if word in self._exceptions:
            return self._known([word, *self._exceptions[word]])
        detached = [word.removesuffix(old) + new for old, new in ENDINGS if word.endswith(old)]
        return self._known([word, *detached])

    def _known(self, forms: list[str]) -> list[str]:
        return [each for each in dict.fromkeys(forms) if each in self._senses]

    def _similarity(self, one: str, two: str) -> float:
        """The highest Wu-Palmer similarity of any senses of two words, 0 if WordNet does not know one as a noun."""
        if one == two:
            return 1.0
        return max((self.wu_palmer(a, b) for a in self.senses(one) for b in self.senses(two)), default=0.0)

    def wu_palmer(self, one: int, two: int) -> float:
        """``2 d / (l1 + l2 + 2 d)``: ``d`` the depth of the deepest common hypernym, counted from 1 at the root, ``l``
        the fewest steps to it, also by way of something above it, as NLTK counts. Of several equally deep ones the most
        favourable counts."""
        above_one, above_two = self._above(one), self._above(two)
        common = above_one.keys() & above_two.keys()
        if not common:
            return 0.0
        lowest = max(map(self._shallow, common))
        return max(
            2 * depth / (_steps(above_one, above) + _steps(above_two, above) + 2 * depth)
            for each in common
            if self._shallow(each) == lowest
            for depth, above in [(self._depth(each) + 1, self._above(each))]
        )

    def _above(self, sense: int) -> dict[int, int]:
        """The sense and everything that it is a kind of, with the fewest steps to it."""
        steps, edge = {sense: 0}, [sense]
        while edge:
            edge = [
                parent
                for each in edge
                for parent in self._parents[each]
                if steps.setdefault(parent, steps[each] + 1) == steps[each] + 1
            ]
        return steps

    def _longest_way_up(self, sense: int) -> int:
        return max((self._depth(parent) + 1 for parent in self._parents[sense]), default=0)

    def _shortest_way_up(self, sense: int) -> int:
        return min((self._shallow(parent) + 1 for parent in self._parents[sense]), default=0)


def _steps(above_sense: dict[int, int], above_other: dict[int, int]) -> int:
    """The fewest steps from a sense to another that is above it."""
    return min(steps + above_other[each] for each, steps in above_sense.items() if each in above_other)


def _lines(path: Path) -> list[str]:
    """The lines of a database file; those of its licence begin with a space."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(" ")]


def _hypernyms(line: str) -> tuple[int, list[int]]:
    """A sense's offset and those of its hypernyms (``@``) and of what it is an instance of (``@i``); see wndb(5WN)."""
    fields = line.split(" | ")[0].split()
    count = int(fields[3], 16)
    pointers = fields[5 + 2 * count :]
    found = [int(pointers[i + 1]) for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i")]
    return int(fields[0]), found
