"""Read what a shared object of Linux, macOS or Windows needs, on any machine.

Knows the file formats, elf(5), <mach-o/loader.h> and PE, as far as these questions go:
which processor, which libraries, which versions of symbols, and which symbols no named
library has. It knows nothing of wheels. 64 bits and little-endian only.
"""

from __future__ import annotations

import dataclasses
import struct

ELF, MACHO, PE = b"\x7fELF\x02\x01", b"\xcf\xfa\xed\xfe", b"MZ"
ELF_PROCESSORS = {62: "x86_64", 183: "aarch64"}
MACHO_PROCESSORS = {0x01000007: "x86_64", 0x0100000C: "arm64"}
PE_PROCESSORS = {0x8664: "AMD64", 0xAA64: "ARM64"}
PE_SIGNATURE, PE_64_BITS = b"PE\0\0", 0x20B
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB, DT_VERNEED, DT_VERNEEDNUM = 1, 5, 0x6FFFFFFE, 0x6FFFFFFF
LC_SYMTAB, LC_LOAD_DYLIB, LC_BUILD_VERSION = 2, 0xC, 0x32
N_STAB, N_TYPE, N_EXT = 0xE0, 0x0E, 0x01
DYNAMIC_LOOKUP = 0xFE  # "in whichever library has it"


class BinaryFormatError(ValueError):
    """The file is of no known format."""


@dataclasses.dataclass(frozen=True)
class Binary:
    """What one file needs."""

    processor: str
    libraries: tuple[str, ...]
    versions: frozenset[str] = frozenset()  # ELF: such as GLIBC_2.17
    unbound: tuple[str, ...] = ()  # Mach-O: symbols that no library is named for
    release: tuple[int, int] = (0, 0)  # Mach-O: the oldest macOS


def read_binary(data: bytes) -> Binary:
    """Return what the file needs; raise `BinaryFormatError` if it is unknown."""
    try:
        if data.startswith(ELF):
            return read_elf(data)
        if data.startswith(MACHO):
            return read_macho(data)
        if data.startswith(PE):
            return read_pe(data)
    except (struct.error, KeyError, IndexError, StopIteration) as error:
        raise BinaryFormatError(f"damaged, or of an unknown kind: {error!r}") from None
    raise BinaryFormatError(f"neither ELF, Mach-O nor PE: {data[:4].hex()}")


def text_at(data: bytes, offset: int) -> str:
    """Return the text that ends with a zero."""
    return data[offset : data.index(b"\0", offset)].decode()


# ---- ELF -------------------------------------------------------------------------


def read_elf(data: bytes) -> Binary:
    """Read the dynamic section."""
    (machine,) = struct.unpack_from("<H", data, 18)
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz
    headers = [
        struct.unpack_from("<IIQQQQQ", data, table + i * size) for i in range(count)
    ]
    loads = [each for each in headers if each[0] == PT_LOAD]
    dynamic = next(each for each in headers if each[0] == PT_DYNAMIC)
    entries = list(
        struct.iter_unpack("<QQ", data[dynamic[2] : dynamic[2] + dynamic[5]])
    )
    values = dict(reversed(entries))

    def at(address: int) -> int:
        """Return where in the file an address is."""
        found = next(each for each in loads if each[3] <= address < each[3] + each[5])
        return int(address - found[3] + found[2])

    strings = at(values[DT_STRTAB])
    needed = [
        text_at(data, strings + value) for tag, value in entries if tag == DT_NEEDED
    ]
    versions = frozenset[str]()
    if DT_VERNEED in values:
        versions = frozenset(
            elf_versions(data, at(values[DT_VERNEED]), values[DT_VERNEEDNUM], strings)
        )
    return Binary(ELF_PROCESSORS[machine], tuple(needed), versions)


def elf_versions(data: bytes, offset: int, count: int, strings: int) -> set[str]:
    """Return the versions of symbols that are needed, of all libraries."""
    found = set()
    for _ in range(count):
        # vn_version, vn_cnt, vn_file, vn_aux, vn_next
        _, names, _, aux, following = struct.unpack_from("<HHIII", data, offset)
        each = offset + aux
        for _ in range(names):
            # vna_hash, vna_flags, vna_other, vna_name, vna_next
            _, _, _, name, step = struct.unpack_from("<IHHII", data, each)
            found.add(text_at(data, strings + name))
            each += step
        offset += following
    return found


# ---- Mach-O ----------------------------------------------------------------------


def read_macho(data: bytes) -> Binary:
    """Read the load commands."""
    processor, _, _, count = struct.unpack_from("<IIII", data, 4)
    libraries, unbound, release = [], [], (0, 0)
    offset = 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, offset)
        if command == LC_LOAD_DYLIB:
            (name,) = struct.unpack_from("<I", data, offset + 8)
            libraries.append(text_at(data, offset + name))
        elif command == LC_BUILD_VERSION:
            (version,) = struct.unpack_from("<I", data, offset + 12)
            release = (version >> 16, version >> 8 & 0xFF)
        elif command == LC_SYMTAB:
            unbound = macho_unbound(data, *struct.unpack_from("<III", data, offset + 8))
        offset += size
    return Binary(
        MACHO_PROCESSORS[processor],
        tuple(libraries),
        frozenset(),
        tuple(unbound),
        release,
    )


def macho_unbound(data: bytes, table: int, count: int, strings: int) -> list[str]:
    """Return undefined symbols without a library, less the underscore of each name."""
    found = []
    for i in range(count):
        # n_strx, n_type, n_sect, n_desc, n_value
        name, kind, _, flags, _ = struct.unpack_from("<IBBHQ", data, table + i * 16)
        if kind & N_STAB or kind & N_TYPE or not kind & N_EXT:
            continue
        if flags >> 8 == DYNAMIC_LOOKUP:
            found.append(text_at(data, strings + name).removeprefix("_"))
    return found


# ---- PE --------------------------------------------------------------------------


def read_pe(data: bytes) -> Binary:
    """Read the import table (PE Format, "The .idata Section")."""
    (header,) = struct.unpack_from("<I", data, 0x3C)
    if data[header : header + 4] != PE_SIGNATURE:
        raise BinaryFormatError("a program of DOS")
    machine, section_count = struct.unpack_from("<HH", data, header + 4)
    size, _, magic = struct.unpack_from("<HHH", data, header + 20)
    if magic != PE_64_BITS:
        raise BinaryFormatError(f"not of 64 bits: {magic:#x}")
    optional = header + 24
    # VirtualSize, VirtualAddress, SizeOfRawData, PointerToRawData
    sections: list[tuple[int, int, int, int]] = [
        struct.unpack_from("<IIII", data, optional + size + i * 40 + 8)
        for i in range(section_count)
    ]
    (imports,) = struct.unpack_from("<I", data, optional + 112 + 8)
    libraries, offset = [], pe_offset(sections, imports)
    # The fourth number leads to the name; the table ends with an entry without one.
    while name := struct.unpack_from("<IIIII", data, offset)[3]:
        libraries.append(text_at(data, pe_offset(sections, name)))
        offset += 20
    return Binary(PE_PROCESSORS[machine], tuple(libraries))


def pe_offset(sections: list[tuple[int, int, int, int]], address: int) -> int:
    """Return where in the file an address is."""
    _, begin, _, place = next(
        each for each in sections if each[1] <= address < each[1] + each[2]
    )
    return address - begin + place
