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
    if is_dry_run:
        return _choose(shelf, retention)
    with shelf.exclusive("backup prune"):
        result = _choose(shelf, retention)
        for name in result.removed:
            shelf.remove(name)
        result.packs, result.size_bytes = (0, 0) if result.unreadable else shelf.sweep()
    return result


def _choose(shelf: Shelf, retention: Retention) -> Pruned:
    backups = shelf.backups()
    sound = {backup.manifest.created_at: backup for backup in backups if backup.manifest}
    kept = choose_kept(list(sound), retention)
    result = Pruned(
        {sound[moment].id: reasons for moment, reasons in kept.items()},
        [backup.id for moment, backup in sorted(sound.items()) if moment not in kept],
        unreadable=[backup.id for backup in backups if backup.manifest is None],
    )
    needed = {
        pack.file
        for backup in sound.values()
        if backup.id in result.kept and backup.manifest
        for pack in backup.manifest.packs
    }
    going = {
        pack.file: pack.size_bytes
        for backup in sound.values()
        if backup.manifest
        for pack in backup.manifest.packs
        if pack.file not in needed
    }
    if not result.unreadable:
        result.packs, result.size_bytes = len(going), sum(going.values())
    return result
