"""Remove what lies below prefixes of an object store, whichever it is."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import TypeAlias

from mlflow_server.artifacts.buckets.bucket import Bucket, Object
from mlflow_server.artifacts.buckets.deleting import delete_patiently
from mlflow_server.artifacts.removal.freed import Found, Freed
from mlflow_server.artifacts.removal.place import Place, neighbours
from mlflow_server.artifacts.removal.scan import UnorderedError, can_scan, scan
from mlflow_server.errors import OpsError

THREADS = 8
# So many run folders fill about one page of a listing.
_NEIGHBOURS_AT_ONCE = 128

# An object, and the number of the place that it lies in.
_Hit: TypeAlias = tuple[int, Object]


class ObjectRemover:
    """Removes places of a bucket.

    An object is deleted soon after it was listed, so that memory does not grow with a place.

    Args:
        bucket: Where they are.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._can_skip = bucket.can_skip
        self._pool = ThreadPoolExecutor(THREADS)

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """See `Remover`."""
        deletions = _Deletions(self._bucket, len(places))
        # Places with something beside the location, and what stands for folders on the way to one.
        shared: set[int] = set()
        passed: dict[str, _Hit] = {}

        def delete(hits: Iterable[Sequence[_Hit]]) -> None:
            for some in hits:
                deletions.add(hit for hit in some if _is_at_end(hit[1], places[hit[0]]))
                for number, each in some:
                    if _is_at_end(each, places[number]):
                        continue
                    if each.is_folder and _prefix(places[number].end).startswith(f"{each.key}/"):
                        passed[each.key] = (number, each)
                    else:
                        shared.add(number)

        refused = self._each(places, delete)
        folders = list(passed.values())
        if self._bucket.has_folders:
            for number, place in enumerate(places):
                folders.append((number, Object("/".join(place.parts), 0, None, is_folder=True)))
        kept = shared | refused.keys()
        deletions.add(hit for hit in folders if hit[0] not in kept)
        deletions.finish()
        return [
            refused.get(number) or deletions.reasons.get(number) or freed
            for number, freed in enumerate(deletions.freed)
        ]

    def measure(self, places: Sequence[Place]) -> list[Found | str]:
        """See `Remover`."""
        found = [Found()] * len(places)

        def count(hits: Iterable[Sequence[_Hit]]) -> None:
            counted: dict[int, Found] = {}
            for some in hits:
                for number, each in some:
                    if not each.is_folder and _is_at_end(each, places[number]):
                        so_far = counted.get(number, Found())
                        counted[number] = so_far.with_file(each.size_bytes, each.written_s)
            for number, result in counted.items():
                found[number] = result

        refused = self._each(places, count)
        return [refused.get(number) or result for number, result in enumerate(found)]

    def folders(self, parts: Sequence[str]) -> Iterator[str]:
        """See `Remover`."""
        return self._bucket.list_folders(_prefix(parts))

    def remove_empty(self, folders: Sequence[tuple[str, ...]]) -> None:
        """See `Remover`: there are no folders."""

    def check(self, parts: Sequence[str]) -> bool:
        """See `Remover`."""
        return self._bucket.check(_prefix(parts))

    def close(self) -> None:
        """See `Remover`."""
        self._pool.shutdown()
        self._bucket.close()

    def _each(
        self, places: Sequence[Place], work: Callable[[Iterable[Sequence[_Hit]]], None]
    ) -> dict[int, str]:
        """List places, neighbours together.

        Args:
            places: Where.
            work: Gets the objects of some places; once more from the beginning if need be.

        Returns:
            By the number of the place, why it could not be listed.
        """
        refused: dict[int, str] = {}

        def work_off(numbers: Sequence[int]) -> None:
            try:
                try:
                    work(self._hits(places, numbers))
                except UnorderedError:
                    self._can_skip = False
                    work(self._hits(places, numbers))
            except OpsError as err:
                refused.update(dict.fromkeys(numbers, err.message))

        list(self._pool.map(work_off, neighbours(places, _NEIGHBOURS_AT_ONCE)))
        return refused

    def _hits(self, places: Sequence[Place], numbers: Sequence[int]) -> Iterator[list[_Hit]]:
        names = [places[number].parts[-1] for number in numbers]
        if self._can_skip and len(names) > 1 and can_scan(names):
            above = _prefix(places[numbers[0]].parts[:-1])
            for found in scan(
                above,
                names,
                lambda after, more: self._bucket.list(above, after=after, more=more),
            ):
                yield [(numbers[index], each) for index, each in found]
            return
        for number in numbers:
            more = None
            while True:
                page = self._bucket.list(_prefix(places[number].parts), more=more)
                yield [(number, each) for each in page.objects]
                if (more := page.more) is None:
                    break


class _Deletions:
    """Gathers objects of all places until there are enough for a request.

    Args:
        bucket: Where they are.
        places: How many places there are.
    """

    def __init__(self, bucket: Bucket, places: int) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._waiting: dict[str, _Hit] = {}
        self._folders: list[_Hit] = []
        self.freed = [Freed()] * places
        self.reasons: dict[int, str] = {}

    def add(self, hits: Iterable[_Hit]) -> None:
        """Delete objects soon."""
        requests = []
        with self._lock:
            for hit in hits:
                if hit[1].is_folder:
                    self._folders.append(hit)
                else:
                    self._waiting[hit[1].key] = hit
            while len(self._waiting) >= self._bucket.keys_per_request:
                requests.append(self._take())
        for request in requests:
            self._delete(request)

    def finish(self) -> None:
        """Delete the rest; at last what stands for folders, from the innermost outwards."""
        while self._waiting:
            self._delete(self._take())
        for _, level in groupby(sorted(self._folders, key=_depth, reverse=True), key=_depth):
            while some := {hit[1].key: hit for hit in islice(level, self._bucket.keys_per_request)}:
                self._delete(some)

    def _take(self) -> dict[str, _Hit]:
        keys = list(islice(self._waiting, self._bucket.keys_per_request))
        return {key: self._waiting.pop(key) for key in keys}

    def _delete(self, hits: Mapping[str, _Hit]) -> None:
        refusals = delete_patiently(self._bucket, list(hits))
        with self._lock:
            for key, (number, each) in hits.items():
                if key in refusals:
                    self.reasons.setdefault(number, refusals[key].reason)
                elif not each.is_folder:
                    self.freed[number] += Freed(1, each.size_bytes)


def _is_at_end(each: Object, place: Place) -> bool:
    """True for what is in a location, and for what stands for its folder."""
    path = f"{each.key}/" if each.is_folder else each.key
    return not place.inside or path.startswith(_prefix(place.end))


def _prefix(parts: Sequence[str]) -> str:
    return "".join(f"{part}/" for part in parts)


def _depth(hit: _Hit) -> int:
    return hit[1].key.strip("/").count("/")
