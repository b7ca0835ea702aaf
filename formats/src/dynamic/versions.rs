//! Symbol versions: `.gnu.version_r` (what an image needs) and `.gnu.version_d` (what it defines), both ways.
//!
//! The third section, `.gnu.version`, is one little-endian `u16` for each dynamic symbol: an index that the
//! other two give a name, with [`VERSYM_HIDDEN`] for a definition that is not the default of its name.
//!
//! # Source
//! LSB Core, "Symbol Versioning".

use crate::cursor::Cursor;
use crate::error::FormatError;

/// Index of a symbol that isn't visible outside of the image.
pub const VER_NDX_LOCAL: u16 = 0;
/// Index of a symbol without a version; also that of the base definition.
pub const VER_NDX_GLOBAL: u16 = 1;
/// The first index that is free for a version: 1 is the base definition's even if there is none.
pub const VER_NDX_FIRST: u16 = 2;
/// Bit of a `.gnu.version` entry: only who asks for this very version gets the symbol (`name@V`, not
/// `name@@V`).
pub const VERSYM_HIDDEN: u16 = 0x8000;
/// The bits of a `.gnu.version` entry that hold the index.
pub const VERSYM_VERSION: u16 = 0x7fff;
/// `vd_flags` of the definition that names the file itself.
pub const VER_FLG_BASE: u16 = 1;
/// `vna_flags` of a version that may be missing at run time: the loader only warns.
pub const VER_FLG_WEAK: u16 = 2;

/// Both structures have only ever had this version (`VER_NEED_CURRENT`, `VER_DEF_CURRENT`).
const CURRENT: u16 = 1;
const NEED_LEN: usize = 16;
const NEED_AUX_LEN: usize = 16;
const DEF_LEN: usize = 20;
const DEF_AUX_LEN: usize = 8;

/// A library and the versions that are needed from it (`Elf64_Verneed`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeededFile {
    /// Offset in `.dynstr` of its name, the same as in its `DT_NEEDED` entry.
    pub file: u32,
    /// At least one: the loader reads a first one unasked. [`encode_needed`] leaves out a file with none.
    pub versions: Vec<NeededVersion>,
}

/// One needed version (`Elf64_Vernaux`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeededVersion {
    /// [`sysv_hash`](super::hash::sysv_hash) of its name.
    pub hash: u32,
    /// 0 or [`VER_FLG_WEAK`].
    pub flags: u16,
    /// What `.gnu.version` calls it. Unique in the image, among defined versions too.
    pub index: u16,
    /// Offset in `.dynstr` of its name.
    pub name: u32,
}

/// A version that the image defines (`Elf64_Verdef`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinedVersion {
    /// 0, [`VER_FLG_BASE`] or [`VER_FLG_WEAK`].
    pub flags: u16,
    /// What `.gnu.version` calls it.
    pub index: u16,
    /// [`sysv_hash`](super::hash::sysv_hash) of its name.
    pub hash: u32,
    /// Offset in `.dynstr` of its name; for the base definition, that of the soname.
    pub name: u32,
    /// Offsets in `.dynstr` of the names of its parents. The loader ignores them.
    pub parents: Vec<u32>,
}

/// Size of `.gnu.version_r` for these numbers of versions, one number for each file. Units: bytes; the
/// section is aligned 8. A file without versions takes none.
pub fn needed_size(versions: impl IntoIterator<Item = usize>) -> u64 {
    let size = |count: usize| if count == 0 { 0 } else { NEED_LEN as u64 + (NEED_AUX_LEN * count) as u64 };
    versions.into_iter().map(size).sum()
}

/// Size of `.gnu.version_d` for these numbers of parents, one number for each definition. Units: bytes; the
/// section is aligned 8.
pub fn defined_size(parents: impl IntoIterator<Item = usize>) -> u64 {
    parents.into_iter().map(|count| DEF_LEN as u64 + (DEF_AUX_LEN * (1 + count)) as u64).sum()
}

/// The bytes of `.gnu.version_r`. Its `sh_info` and `DT_VERNEEDNUM` are the number of files with versions.
///
/// # Errors
/// `Unsupported` if a file has more than 65535 versions: its count has 16 bits.
pub fn encode_needed(files: &[NeededFile]) -> Result<Vec<u8>, FormatError> {
    let size = needed_size(files.iter().map(|file| file.versions.len()));
    let mut bytes = Vec::with_capacity(size as usize);
    let mut files = files.iter().filter(|file| !file.versions.is_empty()).peekable();
    while let Some(NeededFile { file, versions }) = files.next() {
        let count = count(versions.len(), "versions needed from a file", bytes.len())?;
        let next = chain(files.peek().is_some(), NEED_LEN + NEED_AUX_LEN * versions.len());
        put_halves(&mut bytes, &[CURRENT, count]);
        put_words(&mut bytes, &[*file, NEED_LEN as u32, next]);
        let mut versions = versions.iter().peekable();
        while let Some(NeededVersion { hash, flags, index, name }) = versions.next() {
            put_words(&mut bytes, &[*hash]);
            put_halves(&mut bytes, &[*flags, *index]);
            put_words(&mut bytes, &[*name, chain(versions.peek().is_some(), NEED_AUX_LEN)]);
        }
    }
    Ok(bytes)
}

/// The bytes of `.gnu.version_d`. Its `sh_info` and `DT_VERDEFNUM` are the number of definitions, of which
/// the first should be the base ([`VER_FLG_BASE`], [`VER_NDX_GLOBAL`]).
///
/// # Errors
/// `Unsupported` if a definition has more than 65534 parents: its count has 16 bits.
pub fn encode_defined(definitions: &[DefinedVersion]) -> Result<Vec<u8>, FormatError> {
    let size = defined_size(definitions.iter().map(|definition| definition.parents.len()));
    let mut bytes = Vec::with_capacity(size as usize);
    let mut definitions = definitions.iter().peekable();
    while let Some(DefinedVersion { flags, index, hash, name, parents }) = definitions.next() {
        let names = 1 + parents.len();
        let count = count(names, "names of a version", bytes.len())?;
        put_halves(&mut bytes, &[CURRENT, *flags, *index, count]);
        let next = chain(definitions.peek().is_some(), DEF_LEN + DEF_AUX_LEN * names);
        put_words(&mut bytes, &[*hash, DEF_LEN as u32, next]);
        let mut names = std::iter::once(name).chain(parents).peekable();
        while let Some(name) = names.next() {
            put_words(&mut bytes, &[*name, chain(names.peek().is_some(), DEF_AUX_LEN)]);
        }
    }
    Ok(bytes)
}

fn count(len: usize, what: &str, offset: usize) -> Result<u16, FormatError> {
    let what = || format!("{len} {what}: at most 65535");
    u16::try_from(len).map_err(|_| FormatError::Unsupported { what: what(), offset: offset as u64 })
}

/// The distance to the next entry of a chain, or 0 at its end. Fits: lengths are below 16 * 65536.
fn chain(more: bool, distance: usize) -> u32 {
    if more { distance as u32 } else { 0 }
}

fn put_halves(bytes: &mut Vec<u8>, halves: &[u16]) {
    bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
}

fn put_words(bytes: &mut Vec<u8>, words: &[u32]) {
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

/// Reads the first `count` files of `.gnu.version_r`; `bytes` may go on behind the section.
///
/// # Errors
/// A structure of another version or past the end, or chains that cross so often that they can't be meant.
pub fn read_needed(bytes: &[u8], count: u32) -> Result<Vec<NeededFile>, FormatError> {
    let mut budget = Budget { left: bytes.len() / NEED_AUX_LEN };
    let mut files = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        budget.spend(at)?;
        let mut need = Cursor::new(bytes, at, "needed version");
        expect_current(need.u16()?, at)?;
        let (versions, file, aux, next) = (need.u16()?, need.u32()?, need.u32()?, need.u32()?);
        let mut entry = NeededFile { file, versions: Vec::new() };
        let mut aux_at = forward(at, aux);
        for _ in 0..versions {
            budget.spend(aux_at)?;
            let mut aux = Cursor::new(bytes, aux_at, "needed version");
            let (hash, flags, index, name) = (aux.u32()?, aux.u16()?, aux.u16()?, aux.u32()?);
            entry.versions.push(NeededVersion { hash, flags, index, name });
            match aux.u32()? {
                0 => break,
                next => aux_at = forward(aux_at, next),
            }
        }
        files.push(entry);
        if next == 0 {
            break;
        }
        at = forward(at, next);
    }
    Ok(files)
}

/// Reads the first `count` definitions of `.gnu.version_d`; `bytes` may go on behind the section.
///
/// # Errors
/// A structure of another version or past the end, a definition without a name, or chains that cross so often
/// that they can't be meant.
pub fn read_defined(bytes: &[u8], count: u32) -> Result<Vec<DefinedVersion>, FormatError> {
    let mut budget = Budget { left: bytes.len() / DEF_AUX_LEN };
    let mut definitions = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        budget.spend(at)?;
        let mut def = Cursor::new(bytes, at, "version definition");
        expect_current(def.u16()?, at)?;
        let (flags, index, names) = (def.u16()?, def.u16()?, def.u16()?);
        let (hash, aux, next) = (def.u32()?, def.u32()?, def.u32()?);
        let mut found = Vec::new();
        let mut aux_at = forward(at, aux);
        for _ in 0..names {
            budget.spend(aux_at)?;
            let mut aux = Cursor::new(bytes, aux_at, "name of version definition");
            found.push(aux.u32()?);
            match aux.u32()? {
                0 => break,
                next => aux_at = forward(aux_at, next),
            }
        }
        let Some((name, parents)) = found.split_first() else {
            let what = "number of names of version definition";
            return Err(FormatError::BadValue { what, value: 0, offset: at as u64 });
        };
        definitions.push(DefinedVersion { flags, index, hash, name: *name, parents: parents.to_vec() });
        if next == 0 {
            break;
        }
        at = forward(at, next);
    }
    Ok(definitions)
}

/// Links of a chain are unsigned, so a chain never goes back; what leaves the address space leaves the bytes.
fn forward(at: usize, distance: u32) -> usize {
    at.saturating_add(distance as usize)
}

fn expect_current(version: u16, at: usize) -> Result<(), FormatError> {
    match version {
        CURRENT => Ok(()),
        other => {
            let what = format!("version structure of revision {other}");
            Err(FormatError::Unsupported { what, offset: at as u64 })
        }
    }
}

/// Entries that may still be read. Entries of a sane table don't overlap, so there are at most as many as
/// fit; a table whose outer entries all lead to one long inner chain would cost the square of its size.
struct Budget {
    left: usize,
}

impl Budget {
    fn spend(&mut self, at: usize) -> Result<(), FormatError> {
        let what = "version entries, which overlap,";
        let error = FormatError::BadValue { what, value: at as u64, offset: at as u64 };
        self.left = self.left.checked_sub(1).ok_or(error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::sysv_hash;
    use super::*;
    use crate::hostile::every_damage;

    fn needed() -> Vec<NeededFile> {
        let version = |name: &str, index, offset| NeededVersion {
            hash: sysv_hash(name.as_bytes()),
            flags: 0,
            index,
            name: offset,
        };
        vec![
            NeededFile {
                file: 1,
                versions: vec![version("GLIBC_2.34", 3, 20), version("GLIBC_2.2.5", 2, 31)],
            },
            NeededFile { file: 11, versions: vec![version("GLIBC_2.29", 4, 43)] },
        ]
    }

    fn defined() -> Vec<DefinedVersion> {
        vec![
            DefinedVersion { flags: VER_FLG_BASE, index: 1, hash: 0x12, name: 1, parents: vec![] },
            DefinedVersion { flags: 0, index: 2, hash: 0x5a1, name: 9, parents: vec![] },
            DefinedVersion { flags: 0, index: 3, hash: 0x5a2, name: 12, parents: vec![9, 1] },
        ]
    }

    #[test]
    fn needed_bytes_are_those_of_the_specification() {
        let bytes = encode_needed(&needed()[..1]).unwrap();
        let expected = [
            [1, 0, 2, 0],
            1_u32.to_le_bytes(),
            16_u32.to_le_bytes(),
            [0; 4],
            0x0696_91b4_u32.to_le_bytes(),
            [0, 0, 3, 0],
            20_u32.to_le_bytes(),
            16_u32.to_le_bytes(),
            0x0969_1a75_u32.to_le_bytes(),
            [0, 0, 2, 0],
            31_u32.to_le_bytes(),
            [0; 4],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn defined_bytes_are_those_of_the_specification() {
        let bytes = encode_defined(&defined()[1..]).unwrap();
        let halves: Vec<u16> =
            bytes.chunks_exact(2).map(|half| u16::from_le_bytes(half.try_into().unwrap())).collect();
        let expected = [
            [1, 0, 2, 1, 0x5a1, 0, 20, 0, 28, 0].as_slice(),
            &[9, 0, 0, 0],
            &[1, 0, 3, 3, 0x5a2, 0, 20, 0, 0, 0],
            &[12, 0, 8, 0, 9, 0, 8, 0, 1, 0, 0, 0],
        ];
        assert_eq!(halves, expected.concat());
    }

    #[test]
    fn reading_is_the_inverse_of_encoding_and_sizes_hold() {
        let bytes = encode_needed(&needed()).unwrap();
        assert_eq!(bytes.len() as u64, needed_size([2, 1]));
        assert_eq!(read_needed(&bytes, 2), Ok(needed()));
        let bytes = encode_defined(&defined()).unwrap();
        assert_eq!(bytes.len() as u64, defined_size([0, 0, 2]));
        assert_eq!(read_defined(&bytes, 3), Ok(defined()));
        assert_eq!(read_defined(&bytes, 1), Ok(defined()[..1].to_vec()));
        assert_eq!((encode_needed(&[]), encode_defined(&[])), (Ok(vec![]), Ok(vec![])));
        assert_eq!((read_needed(&[], 0), read_defined(&[], 0)), (Ok(vec![]), Ok(vec![])));
    }

    #[test]
    fn file_without_versions_is_left_out() {
        let mut files = needed();
        files.insert(1, NeededFile { file: 7, versions: vec![] });
        files.push(NeededFile { file: 8, versions: vec![] });
        assert_eq!(encode_needed(&files), encode_needed(&needed()));
        assert_eq!(needed_size([2, 0, 1, 0]), needed_size([2, 1]));
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        let file = NeededFile { file: 1, versions: vec![NeededVersion::default(); 65_536] };
        assert!(matches!(encode_needed(&[file]), Err(FormatError::Unsupported { .. })));
        let mut version = DefinedVersion { parents: vec![0; 65_535], ..DefinedVersion::default() };
        assert!(matches!(
            encode_defined(std::slice::from_ref(&version)),
            Err(FormatError::Unsupported { .. })
        ));
        version.parents.pop();
        assert_eq!(encode_defined(&[version]).unwrap().len() as u64, defined_size([65_534]));
    }

    #[test]
    fn crossing_chains_end_soon() {
        // 4000 definitions that all claim the names of the last one's chain.
        let mut bytes: Vec<u8> = Vec::new();
        for index in 0..4000_u32 {
            put_halves(&mut bytes, &[CURRENT, 0, 2, 4000]);
            put_words(&mut bytes, &[0, (4000 - index) * 20, 20]);
        }
        (0..4000).for_each(|_| put_words(&mut bytes, &[0, 8]));
        assert!(matches!(read_defined(&bytes, 4000), Err(FormatError::BadValue { .. })));
    }

    #[test]
    fn damage_never_panics() {
        every_damage(&encode_needed(&needed()).unwrap(), |bytes| {
            let _ = read_needed(bytes, 2);
            let _ = read_needed(bytes, u32::MAX);
        });
        every_damage(&encode_defined(&defined()).unwrap(), |bytes| {
            let _ = read_defined(bytes, 3);
            let _ = read_defined(bytes, u32::MAX);
        });
    }
}
