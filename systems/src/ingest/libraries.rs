//! What the shared libraries of the command line define: one table by name, asked for each name that objects mention.
//!
//! Only names that an object, an option or a library refers to become symbols of the link: libc alone defines three
//! thousand that a program never mentions.

use hashbrown::HashTable;
use relink_engine::program::SharedLibrary;
use relink_engine::store::hash_name;

/// A definition of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Index of the library.
    pub library: u32,
    /// Index of the symbol in it.
    pub symbol: u32,
}

/// All definitions, the libraries in order.
#[derive(Default)]
pub(super) struct Libraries {
    table: HashTable<(u64, Offer)>,
}

/// The name without its version, and the version of `name@V` or `name@@V`.
pub(crate) fn split_version(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    match name.iter().position(|&byte| byte == b'@') {
        Some(at) if at > 0 => {
            let version = &name[at + 1..];
            (&name[..at], Some(version.strip_prefix(b"@").unwrap_or(version)))
        }
        _ => (name, None),
    }
}

impl Libraries {
    /// Adds what a library defines.
    pub(super) fn add(&mut self, index: u32, library: &SharedLibrary) {
        for (symbol, record) in (0..).zip(&library.parsed.symbols) {
            if record.defined {
                let hash = hash_name(library.parsed.name(&record.name));
                self.table.insert_unique(hash, (hash, Offer { library: index, symbol }), |&(hash, _)| hash);
            }
        }
    }

    /// The first library's definition of a name; one of a hidden version answers only who asks for that version.
    pub(super) fn find(&self, libraries: &[SharedLibrary], name: &[u8]) -> Option<Offer> {
        let (base, version) = split_version(name);
        let hash = hash_name(base);
        let mut found: Option<Offer> = None;
        for &(known, offer) in self.table.iter_hash(hash) {
            let library = &libraries[offer.library as usize].parsed;
            let symbol = &library.symbols[offer.symbol as usize];
            let matches = known == hash
                && library.name(&symbol.name) == base
                && match version {
                    None => !symbol.hidden,
                    Some(version) => library.version_name(symbol.version) == Some(version),
                };
            let earlier = |best: Offer| (offer.library, offer.symbol) < (best.library, best.symbol);
            if matches && found.is_none_or(earlier) {
                found = Some(offer);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::split_version;

    #[test]
    fn versions_are_cut_off_names() {
        assert_eq!(split_version(b"memcpy@@GLIBC_2.14"), (&b"memcpy"[..], Some(&b"GLIBC_2.14"[..])));
        assert_eq!(split_version(b"memcpy@GLIBC_2.2.5"), (&b"memcpy"[..], Some(&b"GLIBC_2.2.5"[..])));
        assert_eq!(split_version(b"memcpy"), (&b"memcpy"[..], None));
        assert_eq!(split_version(b"@odd"), (&b"@odd"[..], None));
    }
}
