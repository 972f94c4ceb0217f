"""Find texts in JSON as whole words, whatever the field, in upper or lower case, and inside of longer texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import orjson


class WholeTexts:
    """Some texts to look for. `ada@example.com` is found in a URL and in a sentence, not in `ada@example.com.au`.

    JSON may write a character as an escape; of these only the ones that JSON needs are understood, and `%40` for @.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Take texts as they are compared; white space around them and case do not count."""
        wanted = {each.strip().lower() for each in texts} - {""}
        forms = {form for each in wanted for form in (each, each.replace("@", "%40"))}
        written = sorted(orjson.dumps(form)[1:-1] for form in forms)
        # What stands before may be an escape such as \n, whose letter is no part of a word.
        words = b"|".join(map(re.escape, written))
        before = rb"(?:(?<![\w.%+-])|(?<=\\[nrtbf]))"
        self._pattern = re.compile(before + b"(?:" + words + rb")(?![\w-]|\.\w)") if written else None

    def places(self, json: bytes) -> Iterator[int]:
        """Yield where the texts begin in JSON text."""
        if self._pattern is not None:
            for match in self._pattern.finditer(json.lower()):
                yield match.start()

    def within(self, json: bytes) -> bool:
        """Tell whether any of the texts is in JSON text."""
        return self._pattern is not None and self._pattern.search(json.lower()) is not None
