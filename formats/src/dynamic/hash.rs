//! Hash tables of dynamic symbols: `.gnu.hash` and the older `.hash`.
//!
//! `.gnu.hash` dictates the order of the symbols that it holds, and they stand last in `.dynsym`; `.hash`
//! takes any order, and a symbol that is added later costs one link of a chain.

/// `DT_GNU_HASH` of a name: Bernstein's hash, times 33.
///
/// # Source
/// Linux Standard Base does not have it; binutils `bfd_elf_gnu_hash` and glibc `_dl_new_hash` define it.
///
/// # Examples
/// ```
/// use relink_formats::dynamic::hash::gnu_hash;
/// assert_eq!(gnu_hash(b"printf"), 0x156b_2bb8);
/// ```
pub fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

/// `DT_HASH` of a name, which versions use too (`vd_hash`, `vna_hash`). The upper four bits are zero.
///
/// # Source
/// gABI, "Hash Table", `elf_hash`.
pub fn sysv_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, byte| {
        // The gABI's `unsigned long` has 32 bits here: with 64 the result would depend on what was shifted
        // out.
        let hash = (hash << 4).wrapping_add(u32::from(*byte));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

/// Bits of a bloom filter word: the class of the file.
const BLOOM_BITS: u32 = 64;
/// Second bit of a hash in the filter. Any value works; with 26 the bits come from the hash's top, far from
/// those that choose word and first bit (as in lld).
const BLOOM_SHIFT: u32 = 26;
/// Filter bits for each symbol, before rounding up: 12 keep wrong positives of a two-bit filter below 3 %.
const BLOOM_BITS_EACH: u64 = 12;
/// Symbols for each bucket. A chain of four hashes is a quarter of a cache line.
const SYMBOLS_EACH: u64 = 4;

/// A `.gnu.hash` section in the making: which symbol stands where, and the bytes.
///
/// # Source
/// binutils, "DT_GNU_HASH" (`bfd/elflink.c`); glibc `do_lookup_x` is the reader.
///
/// # Examples
/// ```
/// use relink_formats::dynamic::hash::{GnuHash, gnu_hash};
/// let names: [&[u8]; 3] = [b"open", b"close", b"read"];
/// let table = GnuHash::new(names.iter().map(|name| gnu_hash(name)));
/// // `.dynsym`: the null symbol, two undefined ones, then names[order[0]], names[order[1]], …
/// assert_eq!(table.order().len(), 3);
/// assert_eq!(table.encode(3).len() as u64, GnuHash::size(3));
/// ```
#[derive(Clone, Debug)]
pub struct GnuHash {
    order: Vec<u32>,
    /// In that order.
    hashes: Vec<u32>,
}

impl GnuHash {
    /// Arranges the symbols with these hashes: buckets ascend, and within a bucket the order is kept.
    ///
    /// Which bucket a hash falls in depends on how many there are, so adding a symbol may permute all.
    pub fn new(hashes: impl IntoIterator<Item = u32>) -> GnuHash {
        let hashes: Vec<u32> = hashes.into_iter().collect();
        let buckets = bucket_count(hashes.len() as u64);
        let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
        let hash_of = |index: &u32| hashes.get(*index as usize).copied().unwrap_or_default();
        order.sort_by_cached_key(|index| hash_of(index) % buckets);
        let hashes = order.iter().map(hash_of).collect();
        GnuHash { order, hashes }
    }

    /// The symbols in the order in which they must stand in `.dynsym`: positions of the hashes that were
    /// given.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Size of the section for `count` symbols, whatever their hashes. Units: bytes. The section is aligned
    /// 8.
    pub fn size(count: u64) -> u64 {
        let words = 4 + u64::from(bucket_count(count)) + count;
        u64::from(bloom_words(count)) * 8 + words * 4
    }

    /// The bytes of the section.
    ///
    /// * `first` index in `.dynsym` of the first symbol in [`order`](GnuHash::order), at least 1 as index 0
    ///   is the null symbol. Without symbols, the number of dynamic symbols: some readers take that number
    ///   from here.
    pub fn encode(&self, first: u32) -> Vec<u8> {
        let count = self.hashes.len() as u64;
        let shape = GnuShape { buckets: bucket_count(count), first, words: bloom_words(count) };
        let hashes: Vec<Option<u32>> = self.hashes.iter().copied().map(Some).collect();
        shape.encode(&hashes).unwrap_or_default() // The order was made for it.
    }
}

/// What stays of a `.gnu.hash` section when symbols come and go: the sizes of its parts in front of the chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GnuShape {
    buckets: u32,
    /// Index in `.dynsym` of the first symbol that has a place in the chains.
    pub first: u32,
    words: u32,
}

impl GnuShape {
    /// The shape of a section; `None` if its header is none, or the section has no room for what it says.
    pub fn read(section: &[u8]) -> Option<GnuShape> {
        let (header, rest) = section.split_first_chunk::<16>()?;
        let word = |at: usize| header.get(at..at + 4)?.first_chunk().map(|word| u32::from_le_bytes(*word));
        let (buckets, first, words, shift) = (word(0)?, word(4)?, word(8)?, word(12)?);
        let room = u64::from(words) * 8 + u64::from(buckets) * 4;
        let sound =
            buckets > 0 && words.is_power_of_two() && shift == BLOOM_SHIFT && room <= rest.len() as u64;
        sound.then_some(GnuShape { buckets, first, words })
    }

    /// The bucket of a hash.
    pub fn bucket(&self, hash: u32) -> u32 {
        hash % self.buckets.max(1)
    }

    /// Size of the section for so many places. Units: bytes.
    pub fn size(&self, places: u64) -> u64 {
        16 + u64::from(self.words) * 8 + u64::from(self.buckets) * 4 + places * 4
    }

    /// The bytes of the section.
    ///
    /// * `hashes` those of the symbols from `first` on; none for an entry of `.dynsym` that nobody has, which is
    ///   in no chain. `None` if the symbols of a bucket don't stand in a row: no chain can lead to them then.
    pub fn encode(&self, hashes: &[Option<u32>]) -> Option<Vec<u8>> {
        let mut bloom = vec![0_u64; self.words as usize];
        let mut starts = vec![0_u32; self.buckets as usize];
        let mut chains = vec![1_u32; hashes.len()];
        let mut previous = None;
        for (position, &hash) in hashes.iter().enumerate() {
            let bucket = hash.map(|hash| self.bucket(hash));
            if let (Some(hash), Some(bucket)) = (hash, bucket) {
                let word = bloom.get_mut(((hash / BLOOM_BITS) & (self.words - 1)) as usize)?;
                *word |= 1 << (hash % BLOOM_BITS) | 1 << ((hash >> BLOOM_SHIFT) % BLOOM_BITS);
                let start = starts.get_mut(bucket as usize)?;
                if *start == 0 {
                    *start = self.first.saturating_add(position as u32);
                } else if previous != Some(bucket) {
                    return None;
                }
                // The lowest bit says that the chain of the bucket ends here; readers ignore it in comparisons.
                let next = hashes.get(position + 1).copied().flatten();
                let last = next.is_none_or(|next| self.bucket(next) != bucket);
                *chains.get_mut(position)? = hash & !1 | u32::from(last);
            }
            previous = bucket;
        }
        let mut bytes = Vec::with_capacity(self.size(hashes.len() as u64) as usize);
        bytes.extend(
            [self.buckets, self.first, self.words, BLOOM_SHIFT].into_iter().flat_map(u32::to_le_bytes),
        );
        bytes.extend(bloom.into_iter().flat_map(u64::to_le_bytes));
        bytes.extend(starts.into_iter().chain(chains).flat_map(u32::to_le_bytes));
        Some(bytes)
    }
}

/// At least 1: readers divide by it.
fn bucket_count(symbols: u64) -> u32 {
    (symbols / SYMBOLS_EACH).clamp(1, 1 << 30) as u32
}

/// A power of two, as the format demands; one word of zeros refuses every name if there are no symbols.
fn bloom_words(symbols: u64) -> u32 {
    (symbols.saturating_mul(BLOOM_BITS_EACH) / u64::from(BLOOM_BITS) + 1).min(1 << 30).next_power_of_two()
        as u32
}

/// Size of a `.hash` section of `symbols` dynamic symbols, the null symbol included, with `buckets` buckets.
/// Units: bytes; the section is aligned 8.
///
/// One bucket for each symbol is a good number: chains are then about one long.
pub fn sysv_size(buckets: u32, symbols: u32) -> u64 {
    (2 + u64::from(buckets.max(1)) + u64::from(symbols.max(1))) * 4
}

/// The bytes of a `.hash` section.
///
/// A symbol is put in front of its chain. So the table of one more symbol differs in the words for `nchain`,
/// its bucket and its own chain link only, which is what makes appending cheap.
///
/// * `buckets` at least 1; 0 is taken as 1, because readers divide by it.
/// * `hashes`  [`sysv_hash`] of the dynamic symbols from index 1 on; undefined ones too, which readers skip. None
///   for an entry that nobody has, which is in no chain.
///
/// # Source
/// gABI, "Hash Table".
pub fn sysv_encode(buckets: u32, hashes: &[Option<u32>]) -> Vec<u8> {
    let buckets = buckets.max(1);
    let mut starts = vec![0_u32; buckets as usize];
    let mut chains = vec![0_u32];
    for (index, hash) in (1_u32..).zip(hashes) {
        let start = hash.and_then(|hash| starts.get_mut((hash % buckets) as usize));
        chains.push(start.map_or(0, |start| std::mem::replace(start, index)));
    }
    let header = [buckets, chains.len() as u32];
    header.into_iter().chain(starts).chain(chains).flat_map(u32::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_loader() {
        let gnu = [("", 0x1505), ("printf", 0x156b_2bb8), ("exit", 0x7c96_7e3f), ("syscall", 0xbac2_12a0)];
        for (name, hash) in gnu {
            assert_eq!(gnu_hash(name.as_bytes()), hash, "{name}");
        }
        let sysv = [
            ("", 0),
            ("printf", 0x0779_05a6),
            ("exit", 0x0006_cf04),
            ("syscall", 0x0b09_985c),
            // Versions, as `readelf -V` and every library on disk have them.
            ("GLIBC_2.2.5", 0x0969_1a75),
            ("GLIBC_2.34", 0x0696_91b4),
        ];
        for (name, hash) in sysv {
            assert_eq!(sysv_hash(name.as_bytes()), hash, "{name}");
        }
        assert_eq!(sysv_hash(&[0xff; 40]) >> 28, 0);
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("symbol_{number}")).collect()
    }

    /// The lookup of glibc's `do_lookup_x`, over `.dynsym` names: the index found, and whether the filter let
    /// the name pass.
    fn gnu_lookup(table: &[u8], symbols: &[&str], name: &str) -> (Option<usize>, bool) {
        let all = words(table);
        let [buckets, first, bloom_words, shift] = all[..4] else { panic!("header") };
        let bloom = &all[4..4 + 2 * bloom_words as usize];
        let starts = &all[4 + bloom.len()..][..buckets as usize];
        let chains = &all[4 + bloom.len() + starts.len()..];
        let hash = gnu_hash(name.as_bytes());
        let at = 2 * ((hash / 64) & (bloom_words - 1)) as usize;
        let word = u64::from(bloom[at]) | u64::from(bloom[at + 1]) << 32;
        if word >> (hash % 64) & word >> ((hash >> shift) % 64) & 1 == 0 {
            return (None, false);
        }
        let mut index = starts[(hash % buckets) as usize];
        while index != 0 {
            let chain = chains[(index - first) as usize];
            if chain | 1 == hash | 1 && symbols[index as usize] == name {
                return (Some(index as usize), true);
            }
            if chain & 1 != 0 {
                break;
            }
            index += 1;
        }
        (None, true)
    }

    #[test]
    fn gnu_table_finds_every_name_and_few_others() {
        for count in [1, 2, 3, 4, 7, 8, 63, 64, 65, 5000] {
            let names = names(count);
            let table = GnuHash::new(names.iter().map(|name| gnu_hash(name.as_bytes())));
            let mut symbols = vec!["", "undefined"];
            symbols.extend(table.order().iter().map(|index| names[*index as usize].as_str()));
            let bytes = table.encode(2);
            assert_eq!(bytes.len() as u64, GnuHash::size(count as u64));
            for (index, name) in symbols.iter().enumerate().skip(2) {
                assert_eq!(gnu_lookup(&bytes, &symbols, name), (Some(index), true), "{count}");
            }
            // Scattered: names that differ in their last digits alone meet in few words of the filter.
            let absent = (0..1000_u32).map(|number| format!("{:x}_absent", number.wrapping_mul(0x9e37_79b1)));
            let passed = absent.map(|name| gnu_lookup(&bytes, &symbols, &name)).filter(|(found, passed)| {
                assert_eq!(*found, None);
                *passed
            });
            assert!(passed.count() < 50, "the filter refuses too few of 1000 absent names");
        }
    }

    #[test]
    fn order_is_stable_within_a_bucket() {
        // 8 hashes give two buckets: odd and even ones.
        let table = GnuHash::new([7, 2, 5, 4, 9, 0, 1, 6]);
        assert_eq!(table.order(), [1, 3, 5, 7, 0, 2, 4, 6]);
        let chains = &words(&table.encode(1))[4 + 4 + 2..];
        assert_eq!(chains, [2, 4, 0, 7, 6, 4, 8, 1]);
    }

    #[test]
    fn empty_gnu_table_refuses_all_names_without_dividing_by_zero() {
        let bytes = GnuHash::new([]).encode(5);
        assert_eq!(words(&bytes), [1, 5, 1, 26, 0, 0, 0]);
        assert_eq!(bytes.len() as u64, GnuHash::size(0));
        assert_eq!(gnu_lookup(&bytes, &[], "printf"), (None, false));
    }

    fn sysv_lookup(table: &[u8], symbols: &[String], name: &str) -> Option<usize> {
        let all = words(table);
        let (starts, chains) = all[2..].split_at(all[0] as usize);
        assert_eq!(chains.len(), all[1] as usize);
        let mut index = starts[(sysv_hash(name.as_bytes()) % all[0]) as usize];
        while index != 0 && symbols[index as usize - 1] != name {
            index = chains[index as usize];
        }
        (index != 0).then_some(index as usize)
    }

    #[test]
    fn sysv_table_finds_every_name() {
        for (count, buckets) in [(0, 0), (1, 1), (10, 3), (1000, 1000)] {
            let names = names(count);
            let hashes: Vec<Option<u32>> =
                names.iter().map(|name| sysv_hash(name.as_bytes())).map(Some).collect();
            let bytes = sysv_encode(buckets, &hashes);
            assert_eq!(bytes.len() as u64, sysv_size(buckets, 1 + count as u32));
            for (index, name) in names.iter().enumerate() {
                assert_eq!(sysv_lookup(&bytes, &names, name), Some(index + 1));
            }
            assert_eq!(sysv_lookup(&bytes, &names, "absent"), None);
        }
    }

    #[test]
    fn one_more_symbol_changes_three_words_of_a_sysv_table() {
        let hashes: Vec<Option<u32>> =
            names(100).iter().map(|name| sysv_hash(name.as_bytes())).map(Some).collect();
        let (before, after) = (words(&sysv_encode(64, &hashes[..99])), words(&sysv_encode(64, &hashes)));
        let changed: Vec<usize> = (0..before.len()).filter(|word| before[*word] != after[*word]).collect();
        assert_eq!(changed, [1, 2 + (hashes[99].unwrap() % 64) as usize]);
        assert_eq!(after.len(), before.len() + 1);
    }

    #[test]
    fn symbols_come_and_go_within_the_shape_of_a_table() {
        let names = names(40);
        let hash = |name: &String| gnu_hash(name.as_bytes());
        let table = GnuHash::new(names[..20].iter().map(hash));
        let bytes = table.encode(3);
        let shape = GnuShape::read(&bytes).unwrap();
        assert_eq!((shape.first, shape.size(20)), (3, bytes.len() as u64));
        let mut placed: Vec<Option<usize>> = table.order().iter().map(|&at| Some(at as usize)).collect();
        let hashes = |placed: &[Option<usize>]| -> Vec<Option<u32>> {
            placed.iter().map(|at| at.map(|at| hash(&names[at]))).collect()
        };
        assert_eq!(shape.encode(&hashes(&placed)), Some(bytes.clone()));
        // A bucket that is taken to the end and gains a symbol; its old places are nobody's.
        let bucket = shape.bucket(hash(&names[20]));
        let own: Vec<usize> = (0..20)
            .filter(|&at| placed[at].is_some_and(|name| shape.bucket(hash(&names[name])) == bucket))
            .collect();
        assert!(!own.is_empty(), "the test's names meet in buckets");
        for at in own {
            let name = placed[at].take();
            placed.push(name);
        }
        placed.push(Some(20));
        let longer = shape.encode(&hashes(&placed)).unwrap();
        let mut symbols = vec!["", "undefined", "undefined"];
        symbols.extend(placed.iter().map(|at| at.map_or("", |at| names[at].as_str())));
        for name in &names[..21] {
            let found = gnu_lookup(&longer, &symbols, name).0.map(|at| symbols[at]);
            assert_eq!(found, Some(name.as_str()));
        }
        // Symbols of a bucket in two places: no chain leads to both.
        placed.insert(0, Some(20));
        assert_eq!(shape.encode(&hashes(&placed)), None);
    }

    #[test]
    fn damaged_shapes_are_refused() {
        let bytes = GnuHash::new(names(9).iter().map(|name| gnu_hash(name.as_bytes()))).encode(1);
        assert!(GnuShape::read(&bytes).is_some() && GnuShape::read(&bytes[..15]).is_none());
        for (at, byte) in [(0, 0), (3, 0x40), (8, 3), (11, 0x40), (12, 5)] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            assert_eq!(GnuShape::read(&wrong), None, "{at}");
        }
    }
}
