"""`backup prune`: forget old backups, and what no other one needs of them."""

from dataclasses import dataclass, field

from mlflow_server.backup.retention import Retention, choose_kept
from mlflow_server.backup.shelf import Shelf


@dataclass
class Pruned:
    """What went, or would go.

    Args:
        kept: Names of the backups that stay, newest first, with the rules that want them.
        removed: Names of those that go, oldest first.
        packs: How many packs go with them.
        size_bytes: How much these packs are.
        unreadable: Names of backups that cannot be read; they stay, and all packs with them.
    """

    kept: dict[str, list[str]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    packs: int = 0
    size_bytes: int = 0
    unreadable: list[str] = field(default_factory=list)


def prune_backups(shelf: Shelf, retention: Retention, *, is_dry_run: bool) -> Pruned:
    """Remove backups that no rule wants.

    Args:
        shelf: Where they are.
        retention: The rules.
        is_dry_run: Remove nothing.

    Raises:
        BusyError: Somebody is making a backup there.
        OpsError: The place cannot be reached or changed.
    """
    if is_dry_run or not shelf.taken_names():
        return _choose(shelf, retention)
    with shelf.exclusive("backup prune") as turn:
        result = _choose(shelf, retention)
        for name in result.removed:
            turn.check()
            shelf.remove(name)
        turn.check()
        gone = shelf.sweep(shelf.backups())
    result.packs, result.size_bytes = len(gone), sum(file.size_bytes for file in gone)
    return result


def _choose(shelf: Shelf, retention: Retention) -> Pruned:
    backups = shelf.backups()
    moments = {backup.id: backup.manifest.created_at for backup in backups if backup.manifest}
    kept = choose_kept(moments, retention)
    removed = [name for name in sorted(moments, key=lambda name: moments[name]) if name not in kept]
    left = [backup for backup in backups if backup.id not in removed]
    going = shelf.strays(left)
    unreadable = [backup.id for backup in backups if backup.manifest is None]
    size_bytes = sum(file.size_bytes for file in going)
    return Pruned(kept, removed, len(going), size_bytes, unreadable)
