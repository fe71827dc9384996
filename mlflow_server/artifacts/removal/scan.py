"""Find the objects of many neighbouring folders with few listings. Pure."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from mlflow_server.artifacts.buckets.bucket import Object, Page


class UnorderedError(Exception):
    """The store does not list keys in their order."""


def scan(
    above: str, names: Sequence[str], read_page: Callable[[str, str | None], Page]
) -> Iterator[list[tuple[int, Object]]]:
    """List folders next to each other together, and leap over what lies between them.

    That takes at most one listing per folder, and one for each full page of their objects; few
    when the folders are small and close to each other.

    Args:
        above: The prefix that the folders have in common, with the slash at its end.
        names: Of the folders, ascending; see `can_scan`.
        read_page: Lists what begins with `above` from a key on (that need not exist, and that is
            itself left out), or the page after another.

    Yields:
        Page by page the objects of the folders, with the number of their folder in `names`.

    Raises:
        UnorderedError: Some objects may not have been found.
    """
    number, more = 0, None
    last_key, last_name = "", ""
    while number < len(names):
        before = above + _before(names[number])
        if more is None or before > last_key:
            more, last_key = None, before
        page = read_page(before, more)
        found = []
        for each in page.objects:
            name = each.key[len(above) :].partition("/")[0]
            if name < last_name and name + "/" < last_name + "/":
                raise UnorderedError("the store does not list keys in their order")
            while number < len(names) and _is_past(names[number], name):
                number += 1
            if number < len(names) and each.key.startswith(f"{above}{names[number]}/"):
                found.append((number, each))
            last_key, last_name = each.key, name
        yield found
        more = page.more
        if more is None:
            return


def can_scan(names: Sequence[str]) -> bool:
    """True for names that come in the same order as folders and as words.

    Some stores sort by whole keys, as S3 does, where `a-b/` comes before `a/`, others folder by
    folder.
    """
    return all(one < other and one + "/" < other + "/" for one, other in pairwise(names))


def _is_past(name: str, seen: str) -> bool:
    """True when a folder cannot come any more after another, in either order."""
    return name < seen and name + "/" < seen + "/"


def _before(name: str) -> str:
    """A name that comes shortly before a folder's, and after almost all others that do.

    Not the folder's own: asked for what comes after `a`, some stores leave `a/b` out.
    """
    if name[-1:].isascii() and name[-1:].isalnum():
        earlier = chr(ord(name[-1]) - 1)
        return name[:-1] + (earlier if earlier != "/" else ".") + "~"
    return name[:-1]
