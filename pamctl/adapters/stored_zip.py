"""Where each member of an uncompressed zip file lies, believed only where every record agrees."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MOST_MEMBERS = 100_000
LARGEST_DIRECTORY = 32 << 20
"""In bytes."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW = 0x8
_FULL = 0xFFFFFFFF


class StoredMember(NamedTuple):
    """Where a member's bytes lie in the file, and the CRC-32 that the zip records for them."""

    offset: int
    size: int
    crc: int


class _Record(NamedTuple):
    """A member as the central directory has it."""

    name: bytes
    flags: int
    header: int
    size: int
    crc: int


def stored_members(file: Path) -> dict[str, StoredMember]:
    """Every member of a zip file by name, uncompressed, inside the file and none overlapping another.

    Source: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64). The file starts with its first member and
    ends with its end record, so nothing stands before, after or in a comment.

    Raises:
        ValueError: which record is not so, in words for a `Refusal`.
    """
    with file.open("rb") as stream:
        start, length, count = _directory_place(stream, file.stat().st_size)
        stream.seek(start)
        directory = stream.read(length)
        records = sorted(_records(directory, count), key=lambda record: record.header)
        members: dict[str, StoredMember] = {}
        free = 0
        for record in records:
            name = _member_name(record.name)
            if name in members:
                raise ValueError(f"the zip holds {name} twice")
            if record.header < free or not (members or record.header == 0):
                raise ValueError(f"{name} starts at byte {record.header} of the zip where {free} is due")
            begin = _data_start(stream, record, name)
            free = begin + record.size
            if free > start:
                raise ValueError(f"{name} ends at byte {free}, beyond the zip's members at {start}")
            members[name] = StoredMember(begin, record.size, record.crc)
    return members


def member_bytes(file: Path, member: StoredMember) -> bytes:
    """The bytes of one member; ValueError where they are not those the zip recorded."""
    with file.open("rb") as stream:
        stream.seek(member.offset)
        content = stream.read(member.size)
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise ValueError(f"bytes {member.offset} to {member.offset + member.size} fail the zip's checksum")
    return content


def _directory_place(stream: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where the central directory starts, its length in bytes and its number of members."""
    tail_length = min(size, _END_64.size + _LOCATOR_64.size + _END.size)
    stream.seek(size - tail_length)
    tail = stream.read(tail_length)
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\5\6":
        raise ValueError("the zip's end record is missing")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack(tail[-_END.size :])
    found = [disk, first_disk, here, count, length, start]
    end, limits = size - _END.size, [0xFFFF] * 4 + [_FULL] * 2
    locator = tail[-_END.size - _LOCATOR_64.size : -_END.size]
    if locator[:4] == b"PK\6\7":
        end -= _LOCATOR_64.size + _END_64.size
        if len(tail) < tail_length or end < 0 or _LOCATOR_64.unpack(locator)[1:] != (0, end, 1):
            raise ValueError("the zip64 end record is not where its locator says")
        magic, record_size, _, _, *wide = _END_64.unpack(tail[: _END_64.size])
        agree = all(narrow in (limit, full) for narrow, limit, full in zip(found, limits, wide, strict=True))
        if magic != b"PK\6\6" or record_size != _END_64.size - 12 or not agree:
            raise ValueError("the zip's two end records disagree")
        found = wide
    disk, first_disk, here, count, length, start = found
    if disk or first_disk or here != count or comment or start + length != end:
        raise ValueError("the zip's end record does not fit the file")
    if count > MOST_MEMBERS or length > LARGEST_DIRECTORY:
        raise ValueError(f"the zip names {count} members in {length} bytes, more than any adapter's")
    return start, length, count


def _records(directory: bytes, count: int) -> Iterator[_Record]:
    at = 0
    for _ in range(count):
        if len(directory) - at < _CENTRAL.size or directory[at : at + 4] != b"PK\1\2":
            raise ValueError("the zip's directory is broken off")
        fields = _CENTRAL.unpack_from(directory, at)
        _, _, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, _, header = fields
        extra_at = at + _CENTRAL.size + lengths[0]
        name, extra = directory[at + _CENTRAL.size : extra_at], directory[extra_at : extra_at + lengths[1]]
        at += _CENTRAL.size + sum(lengths)
        if flags & _ENCRYPTED or method or disk:
            raise ValueError(f"{ascii(name)[1:]:.100} is encrypted or compressed in the zip")
        size, packed, header = _widened(extra, size, packed, header)
        if size != packed:
            raise ValueError(f"{ascii(name)[1:]:.100} has two sizes in the zip")
        yield _Record(name, flags, header, size, crc)
    if at != len(directory):
        raise ValueError("the zip's directory is longer than its members")


def _widened(extra: bytes, *numbers: int) -> list[int]:
    """The numbers of a header, those that are full taken from its zip64 extra field."""
    missing = numbers.count(_FULL)
    at = 0
    while missing and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and length >= 8 * missing and at + 4 + 8 * missing <= len(extra):
            wide = iter(struct.unpack_from(f"<{missing}Q", extra, at + 4))
            return [next(wide) if number == _FULL else number for number in numbers]
        at += 4 + length
    if missing:
        raise ValueError("the zip64 field of a member is missing")
    return list(numbers)


def _data_start(stream: BinaryIO, record: _Record, name: str) -> int:
    """The first byte of a member's data, its local header being the one that the directory describes."""
    stream.seek(record.header)
    local = stream.read(_LOCAL.size)
    if len(local) < _LOCAL.size or local[:4] != b"PK\3\4":
        raise ValueError(f"{name} has no header in the zip")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(local)
    given, extra = stream.read(name_length), stream.read(extra_length)
    unsaid = flags & _SIZES_FOLLOW and (crc, packed, size) == (0, 0, 0)
    agree = unsaid or (crc, *_widened(extra, size, packed)) == (record.crc, record.size, record.size)
    if given != record.name or flags != record.flags or method or len(extra) < extra_length or not agree:
        raise ValueError(f"{name} is described twice in the zip, and not alike")
    return record.header + _LOCAL.size + name_length + extra_length


def _member_name(raw: bytes) -> str:
    name = raw.decode()
    if (
        not name.isprintable()
        or "\\" in name
        or name[:1] == "/"
        or ".." in name.split("/")
        or len(name) > 1000
    ):
        raise ValueError(f"the zip holds a member named {name[:100]!a}")
    return name
