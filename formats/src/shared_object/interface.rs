//! The hash of all that a link can depend on in a shared library.

use std::collections::HashMap;

use twox_hash::XxHash3_128;

use super::SharedObject;
use super::SharedSymbol;
use crate::elf::STT_TLS;

/// Version of what goes into the hash.
const SCHEMA: u8 = 1;

impl SharedObject {
    /// A hash that is the same for two libraries if no link can tell them apart, and else another one, but
    /// for chance.
    ///
    /// * In: soname and needed libraries, in order; versions by name; of each symbol its name, version,
    ///   binding, kind and visibility, and whether it is defined.
    /// * In for what [can be copied](SharedSymbol::can_be_copied): size, alignment, whether it is read-only,
    ///   and which symbols are its aliases. In for TLS: size.
    /// * Out: addresses, sizes of functions, indices of versions and sections, the order of symbols and
    ///   versions, and all contents.
    ///
    /// Stable across runs and machines; a version of relink that hashes something else changes all hashes.
    pub fn interface_hash(&self) -> u128 {
        let mut record = Record::default();
        record.bytes(&[SCHEMA, u8::from(self.soname.is_some())]);
        for name in self.soname.iter().chain(&self.needed) {
            record.string(self.name(name));
        }
        // Sums, not a stream: an order that means nothing must not matter. Unlike exclusive or, a sum keeps
        // what occurs twice.
        let mut sum = record.finish();
        for version in &self.versions {
            record.bytes(&[b'V', u8::from(version.is_base)]);
            record.string(self.name(&version.name));
            sum = sum.wrapping_add(record.finish());
        }
        let aliases = self.least_aliases();
        for symbol in &self.symbols {
            self.describe(symbol, &aliases, &mut record);
            sum = sum.wrapping_add(record.finish());
        }
        sum
    }

    fn describe(&self, symbol: &SharedSymbol, aliases: &Aliases<'_>, record: &mut Record) {
        let SharedSymbol { binding, kind, visibility, defined, hidden, .. } = *symbol;
        record.bytes(&[b'S', binding, kind, visibility, u8::from(defined), u8::from(hidden)]);
        let (name, version) = self.full_name(symbol);
        record.string(name);
        record.string(version);
        if defined && kind == STT_TLS {
            record.number(symbol.size);
        }
        if symbol.can_be_copied() {
            record.number(symbol.size);
            record.bytes(&[symbol.align.exponent(), u8::from(symbol.read_only)]);
            if let Some((name, version)) = aliases.get(&(symbol.section, symbol.value)) {
                record.string(name);
                record.string(version);
            }
        }
    }

    /// Name and version, empty if it has none.
    fn full_name(&self, symbol: &SharedSymbol) -> (&[u8], &[u8]) {
        (self.name(&symbol.name), self.version_name(symbol.version).unwrap_or_default())
    }

    /// For each place of data the least of its names, by which its aliases are known.
    fn least_aliases(&self) -> Aliases<'_> {
        let mut least = Aliases::new();
        for symbol in self.symbols.iter().filter(|symbol| symbol.can_be_copied()) {
            let name = self.full_name(symbol);
            least
                .entry((symbol.section, symbol.value))
                .and_modify(|known| *known = name.min(*known))
                .or_insert(name);
        }
        least
    }
}

type Aliases<'a> = HashMap<(u16, u64), (&'a [u8], &'a [u8])>;

/// The bytes of one record. Strings have their length in front, so that no two records are the same bytes.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn string(&mut self, string: &[u8]) {
        self.number(string.len() as u64);
        self.bytes(string);
    }

    /// The hash of the record, after which the next one begins.
    fn finish(&mut self) -> u128 {
        let hash = XxHash3_128::oneshot(&self.0);
        self.0.clear();
        hash
    }
}
