"""Large payloads on their way here (wire-protocol 12): uploaded to Django's storage first, then named by a trigger,
which takes them in and removes the file. Where they lie: STORAGES["realtime_runs"], or else the default storage.
"""

import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from django.core.files.base import ContentFile
from django.core.files.storage import InvalidStorageError, Storage, default_storage, storages
from django.db import transaction
from django.utils import timezone

from realtime_runs.exceptions import InvalidInput
from realtime_runs.packets import JSON, PLAIN_TEXT, SUPER_JSON, Packet

STORED: Final = "application/store"  # of a packet whose text is the name of one that was uploaded
TYPES: Final = (JSON, SUPER_JSON, PLAIN_TEXT)
KEPT_FOR: Final = timedelta(days=1)
_FOLDER: Final = "realtime-runs-packets"
_NAME: Final = re.compile(r"packet_[0-9a-f]{32}", re.ASCII)


def new_name() -> str:
    """Whoever knows it may use the packet."""
    return f"packet_{secrets.token_hex(16)}"


def exists(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and _storage().exists(_path(name))


def save(name: str, type_: str, data: bytes) -> None:
    """Keep what was uploaded; the same name again replaces it. Storages know no content types: it is the first line."""
    files = _storage()
    files.delete(_path(name))
    saved = files.save(_path(name), ContentFile(type_.encode() + b"\n" + data))
    if saved != _path(name):  # two uploads of it in one moment: the other one is there
        files.delete(saved)


def read(name: str) -> Packet:
    """Raises InvalidInput for a name that is not of ours, or not there any more."""
    try:
        if not _NAME.fullmatch(name):
            raise FileNotFoundError
        with _storage().open(_path(name)) as file:
            type_, _, data = bytes(file.read()).partition(b"\n")
    except FileNotFoundError:
        raise InvalidInput("There is no uploaded packet with this storage path.") from None
    try:
        return Packet(data.decode(), type_.decode())
    except UnicodeDecodeError:
        raise InvalidInput("The uploaded packet is not UTF-8.") from None


def inlined(packet: Packet) -> Packet:
    """The packet itself, or the uploaded one that it names; that is removed when the transaction is committed.

    Raises InvalidInput.
    """
    if packet.type != STORED:
        return packet
    name = packet.text or ""
    found = read(name)
    transaction.on_commit(lambda: _storage().delete(_path(name)), robust=True)
    return found


def prune() -> None:
    """Remove what was uploaded and not used within a day."""
    files = _storage()
    oldest = timezone.now() - KEPT_FOR
    for path in _all(files):
        if files.get_modified_time(path) < oldest:
            files.delete(path)


def _all(files: Storage) -> Iterator[str]:
    try:
        _, names = files.listdir(_FOLDER)
    except FileNotFoundError:  # nothing was ever uploaded
        return
    yield from (_path(name) for name in names)


def _path(name: str) -> str:
    return f"{_FOLDER}/{name}"


def _storage() -> Storage:
    try:
        return storages["realtime_runs"]
    except InvalidStorageError:
        return default_storage
