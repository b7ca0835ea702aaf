//! The global symbols of a linked program or library, as `--just-symbols` wants them.

use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader, Sym};
use object::{Endianness, elf as raw};

use crate::elf;
use crate::error::FormatError;
use crate::units::VirtAddr;

/// A global definition with its final address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkedSymbol {
    /// Its name; names that are not UTF-8 are left out.
    pub name: String,
    /// Where it is.
    pub address: VirtAddr,
    /// `st_size`, bytes.
    pub size: u64,
    /// `STT_*`.
    pub kind: u8,
    /// Any other definition prevails.
    pub weak: bool,
}

/// Reads `.symtab`: global and weak definitions that have an address, in the order of the table.
///
/// # Errors
/// `Unsupported` for what is no linked ELF file of x86-64 with a symbol table; `BadValue` if the file is damaged.
pub fn read(bytes: &[u8]) -> Result<Vec<LinkedSymbol>, FormatError> {
    let unsupported = |what: &str| FormatError::Unsupported { what: what.to_owned(), offset: 0 };
    let damaged = |_| FormatError::BadValue { what: "symbol table", value: 0, offset: 0 };
    let header =
        FileHeader64::<Endianness>::parse(bytes).map_err(|_| unsupported("a file that is not ELF"))?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_machine(endian) != raw::EM_X86_64 {
        return Err(unsupported("a program of another machine"));
    }
    if !matches!(header.e_type(endian), raw::ET_EXEC | raw::ET_DYN) {
        return Err(unsupported("a file that is not linked: its symbols have no addresses"));
    }
    let sections = header.sections(endian, bytes).map_err(damaged)?;
    let symbols = sections.symbols(endian, bytes, SHT_SYMTAB).map_err(damaged)?;
    if symbols.is_empty() {
        return Err(unsupported("a program without a symbol table"));
    }
    let mut found = Vec::new();
    for symbol in symbols.iter() {
        let binding = symbol.st_bind().0;
        let kind = symbol.st_type().0;
        let section = symbol.st_shndx(endian).0;
        let global = matches!(binding, elf::STB_GLOBAL | elf::STB_WEAK | elf::STB_GNU_UNIQUE);
        let placed = !matches!(section, elf::SHN_UNDEF | elf::SHN_COMMON);
        // The value of a thread-local is no address.
        if !global || !placed || matches!(kind, elf::STT_TLS | elf::STT_SECTION | elf::STT_FILE) {
            continue;
        }
        let name = symbol.name(endian, symbols.strings()).map_err(damaged)?;
        if let Ok(name) = std::str::from_utf8(name) {
            found.push(LinkedSymbol {
                name: name.to_owned(),
                address: VirtAddr(symbol.st_value(endian)),
                size: symbol.st_size(endian),
                kind,
                weak: binding == elf::STB_WEAK,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_linked_is_refused() {
        let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(refused(b"text").contains("not ELF"));
        let mut header = [0; 64];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        (header[16], header[18]) = (1, 62);
        assert!(refused(&header).contains("not linked"));
        header[16] = 2;
        assert!(refused(&header).contains("without a symbol table"));
        header[18] = 3;
        assert!(refused(&header).contains("another machine"));
        // Section headers behind the end of the file.
        header[18] = 62;
        header[40..48].copy_from_slice(&1_000_000_u64.to_le_bytes());
        (header[58], header[60]) = (64, 3);
        assert!(refused(&header).contains("bad symbol table"));
    }
}
