"""Where two output documents differ: the first place, named as a person would name it."""

from typing import Any

_NAMING = (("series",), ("subject",), ("measure", "method"), ("model",), ("method",), ("covariate",), ("field",))
"""The keys whose texts name an item of a list, tried in this order; without them an item is named by its place."""


def first_difference(expected: Any, actual: Any, path: str = "") -> str:
    """Return where two output documents first differ, e.g. `series[GROCERY].points[3].mean`; "" when nowhere."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in [*actual, *(key for key in expected if key not in actual)]:
            found = first_difference(expected.get(key), actual.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return ""
    if isinstance(expected, list) and isinstance(actual, list):
        for place, pair in enumerate(zip(expected, actual, strict=False)):
            found = first_difference(*pair, f"{path}[{_name(pair[0], place)}]")
            if found:
                return found
        longer = expected if len(expected) > len(actual) else actual
        shorter = min(len(expected), len(actual))
        return "" if len(expected) == len(actual) else f"{path}[{_name(longer[shorter], shorter)}]"
    return "" if expected == actual else path


def _name(item: Any, place: int) -> str:
    if isinstance(item, dict):
        for keys in _NAMING:
            if all(key in item for key in keys):
                return ".".join(str(item[key]) for key in keys)
    return str(place)
