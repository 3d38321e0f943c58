"""An archive and all that belongs to it, opened together: for the server, and for the command beside it.

<data>/index.sqlite        the index
<data>/spool/              recordings on their way
<data>/archive-key.pem     what tombstones and the audit log are signed with
<data>/archive-keys/       public keys of other machines that are believed
<data>/audit/              the audit log
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from recording.archive import Archive
from recording.audit import AuditLog
from recording.catch_up import CatchUp
from recording.custody import Custody
from recording.index import Index
from recording.ledger import Mode
from recording.mirrored import MirroredStore
from recording.signing import KeyRing, Signer
from recording.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Holdings:
    """See the module. Close it when done."""

    store: ObjectStore
    index: Index
    archive: Archive
    custody: Custody
    audit: AuditLog
    keys: KeyRing
    catch_up: CatchUp | None  # where there is a second store

    @classmethod
    def open(
        cls,
        data: Path,
        store: ObjectStore,
        *,
        mode: Mode = "governance",
        wall: Callable[[], float] = time.time,
    ) -> Self:
        """Everything in ``data``, made where it is not there. Raises StoreError when the key cannot be read."""
        signer = Signer(data / "archive-key.pem")
        keys = KeyRing(signer.public, data / "archive-keys")
        index = Index(data / "index.sqlite", wall=wall)
        archive = Archive(data / "spool", store, index, wall=wall)
        custody = Custody(archive, store, index, signer, keys, mode=mode, wall=wall)
        audit = AuditLog(data / "audit", signer, wall=wall)
        catch_up = None
        if isinstance(store, MirroredStore):
            catch_up = CatchUp(store.first, store.second, index, data / "spool", wall=wall)
        return cls(store, index, archive, custody, audit, keys, catch_up)

    def close(self) -> None:
        """Close the index."""
        self.index.close()
