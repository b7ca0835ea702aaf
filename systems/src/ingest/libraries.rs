//! What the shared libraries of the command line define: one table by name, asked for each name that objects mention.
//!
//! Only names that an object, an option or a library refers to become symbols of the link: libc alone defines three
//! thousand that a program never mentions.

use formats::shared_object::SharedObject;
use hashbrown::HashTable;
use relink_engine::column::StoreError;
use relink_engine::frame::Request;
use relink_engine::input::Input;
use relink_engine::plan::Plan;
use relink_engine::program::SharedLibrary;
use relink_engine::records::file_flags;
use relink_engine::store::{Store, hash_name};
use relink_formats as formats;

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

/// A library that a warm frame looks into.
pub(crate) struct Library<'a> {
    pub parsed: &'a SharedObject,
    /// What the output's `DT_NEEDED` says.
    pub needed_name: Vec<u8>,
}

/// Looks into a library of the command line, once in a frame; `None` if the file is no library, or another one than the
/// store knows.
pub(crate) fn open_library<'p>(
    request: &Request,
    store: &Store,
    plan: &'p mut Plan,
    file: u32,
) -> Result<Option<Library<'p>>, StoreError> {
    let Some(input) = input_of(request, store, plan, file)? else { return Ok(None) };
    if !plan.libraries.contains_key(&file) {
        let known = store.files.get(file)?;
        let bytes = input.source.bytes().ok().filter(|_| known.flags & file_flags::SHARED != 0);
        let parsed = bytes.and_then(|bytes| SharedObject::parse(bytes).ok());
        let Some(parsed) = parsed.filter(|parsed| parsed.interface_hash() as u64 == known.index_hash) else {
            return Ok(None);
        };
        plan.libraries.insert(file, parsed);
    }
    Ok(plan.libraries.get(&file).map(|parsed| {
        let named = parsed.soname().or_else(|| input.needed_name.as_ref().map(|name| name.as_bytes()));
        Library { parsed, needed_name: named.unwrap_or(input.name.as_bytes()).to_vec() }
    }))
}

/// What stands on the command line for a file.
pub(crate) fn input_of<'r>(
    request: &'r Request,
    store: &Store,
    plan: &Plan,
    file: u32,
) -> Result<Option<&'r Input>, StoreError> {
    let place = match &plan.order {
        Some(order) => order.iter().position(|known| known.0 == file),
        None if store.order.is_empty() => Some(file as usize),
        None => store.places()?.iter().position(|known| known.0 == file),
    };
    Ok(place.and_then(|place| request.inputs.get(place)))
}

/// A library's definition of a name; one of a hidden version answers only who asks for that version.
pub(crate) fn definition_of(library: &SharedObject, name: &[u8]) -> Option<usize> {
    let (base, version) = split_version(name);
    library.symbols.iter().position(|symbol| {
        symbol.defined
            && library.name(&symbol.name) == base
            && match version {
                None => !symbol.hidden,
                Some(version) => library.version_name(symbol.version) == Some(version),
            }
    })
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
