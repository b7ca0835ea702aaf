//! Static libraries: GNU, GNU with 64-bit index, thin, and BSD archives.

use std::ops::Range;

use bytes::Bytes;
use object::archive::{MAGIC, THIN_MAGIC};
use object::read::archive::{ArchiveFile, ArchiveKind, ArchiveMember, ArchiveOffset};

use crate::error::FormatError;

/// One member. The symbol index and the table of long names aren't members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its file name; bytes that aren't UTF-8 are replaced, so this is for messages.
    pub name: String,
    /// Where its header is, bytes from the start of the archive. Its identity: names may repeat.
    pub offset: u64,
    /// Where its contents are in the archive. In a thin archive `0..size`: there are none.
    pub data: Range<u64>,
    /// In a thin archive the path of the member, relative to the archive's directory.
    pub thin_path: Option<String>,
}

/// An archive whose special members have been found.
#[derive(Clone)]
pub struct Archive {
    /// The whole file.
    pub bytes: Bytes,
    /// Members are files of their own, beside the archive.
    pub thin: bool,
}

/// One entry of the archive's index: the symbol's name as a range of the archive's bytes, without NUL; and
/// the offset of the header of the member that defines it.
pub type IndexEntry = (Range<usize>, u64);

const HEADER_SIZE: u64 = size_of::<object::archive::Header>() as u64;

impl Archive {
    /// Whether these bytes begin like an archive, thin or not.
    pub fn is_archive(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC) || bytes.starts_with(&THIN_MAGIC)
    }

    /// Reads the special members.
    ///
    /// # Errors
    /// No archive, a damaged one, or one of COFF.
    ///
    /// # Source
    /// `ar(5)`; GNU binutils `bfd/archive.c` for long names, the 64-bit index and thin archives.
    pub fn parse(bytes: Bytes) -> Result<Archive, FormatError> {
        let file = open(&bytes)?;
        if file.kind() == ArchiveKind::Coff {
            return Err(FormatError::Unsupported { what: "COFF archive".into(), offset: 0 });
        }
        let thin = file.is_thin();
        Ok(Archive { bytes, thin })
    }

    /// The index of symbols, in its order; `None` if the archive has none (`ar` with `S`).
    ///
    /// # Errors
    /// A truncated index, or a name without its NUL. Offsets of members are checked by
    /// [`member_at`](Archive::member_at).
    pub fn symbols(&self) -> Result<Option<Vec<IndexEntry>>, FormatError> {
        let refused = |error: object::read::Error| archive_error(error, MAGIC.len() as u64);
        let Some(symbols) = open(&self.bytes)?.symbols().map_err(refused)? else { return Ok(None) };
        symbols
            .map(|symbol| {
                let symbol = symbol.map_err(refused)?;
                let start = self.offset_of(symbol.name());
                Ok((start..start + symbol.name().len(), symbol.offset().0))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// All members, in file order.
    ///
    /// # Errors
    /// The first damaged header, or a member that runs past the end of the file.
    pub fn members(&self) -> Result<Vec<Member>, FormatError> {
        let mut next = MAGIC.len() as u64;
        let mut members = Vec::new();
        for member in open(&self.bytes)?.members() {
            let member = self.member(&member.map_err(|error| archive_error(error, next))?)?;
            next = if self.thin { member.offset.saturating_add(HEADER_SIZE) } else { member.data.end };
            members.push(member);
        }
        Ok(members)
    }

    /// The member whose header is at this offset, as the index of symbols gives it.
    ///
    /// # Errors
    /// There is no header, it is that of a special member, or the member runs past the end of the file.
    pub fn member_at(&self, header_offset: u64) -> Result<Member, FormatError> {
        let member = open(&self.bytes)?
            .member(ArchiveOffset(header_offset))
            .map_err(|error| archive_error(error, header_offset))?;
        self.member(&member)
    }

    fn member(&self, member: &ArchiveMember<'_>) -> Result<Member, FormatError> {
        let Some(header) = member.header() else {
            return Err(FormatError::Unsupported { what: "archive of another system".into(), offset: 0 });
        };
        let offset = self.offset_of(&header.name) as u64;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        let (start, size) = member.file_range();
        let Some(end) = start.checked_add(size).filter(|end| self.thin || *end <= self.bytes.len() as u64)
        else {
            let have = (self.bytes.len() as u64).saturating_sub(start);
            return Err(FormatError::Truncated { what: "archive member", offset, need: size, have });
        };
        let thin_path = match self.thin {
            false => None,
            true if std::str::from_utf8(member.name()).is_ok() => Some(name.clone()),
            true => {
                let what = format!("thin archive member `{name}`, whose path is not UTF-8");
                return Err(FormatError::Unsupported { what, offset });
            }
        };
        Ok(Member { name, offset, data: start..end, thin_path })
    }

    /// The position of a slice of this archive's bytes.
    fn offset_of(&self, part: &[u8]) -> usize {
        part.as_ptr().addr().wrapping_sub(self.bytes.as_ptr().addr())
    }
}

/// Sizes only: the derived form would print the whole file.
impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("bytes", &self.bytes.len()).field("thin", &self.thin).finish()
    }
}

/// Cheap enough to be done for each question: it reads at most three headers.
fn open(bytes: &[u8]) -> Result<ArchiveFile<'_>, FormatError> {
    if !Archive::is_archive(bytes) {
        let mut found = [0; 4];
        found.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        return Err(FormatError::BadMagic { what: "archive", offset: 0, found });
    }
    ArchiveFile::parse(bytes).map_err(|error| archive_error(error, MAGIC.len() as u64))
}

fn archive_error(error: object::read::Error, offset: u64) -> FormatError {
    FormatError::Archive { what: error.to_string(), offset }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::every_damage;

    fn header(name: &str, size: usize) -> Vec<u8> {
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, "644").into_bytes()
    }

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = header(name, data.len());
        bytes.extend_from_slice(data);
        if !data.len().is_multiple_of(2) {
            bytes.push(b'\n');
        }
        bytes
    }

    const LONG: &str = "a-name-that-is-longer-than-sixteen.o";

    /// An index, long names, and two members; `wide` is the 64-bit index.
    fn gnu(wide: bool) -> Vec<u8> {
        let names = member("//", format!("{LONG}/\n").as_bytes());
        let (first, second) = (member("a.o/", b"first"), member("/0", b"second"));
        let width = if wide { 8 } else { 4 };
        let index_len = 60 + 3 * width + 8;
        let first_at = 8 + index_len + names.len();
        let words = [2, first_at, first_at + first.len()];
        let mut index: Vec<u8> =
            words.iter().flat_map(|word| (*word as u64).to_be_bytes()[8 - width..].to_vec()).collect();
        index.extend_from_slice(b"foo\0bar\0");
        let index = member(if wide { "/SYM64/" } else { "/" }, &index);
        assert_eq!(index.len(), index_len);
        [&MAGIC[..], &index, &names, &first, &second].concat()
    }

    fn thin() -> Vec<u8> {
        let names = member("//", b"dir/one.o/\ntwo.o/\n");
        [&THIN_MAGIC[..], &names, &header("/0", 1_000), &header("/11", 2_000)].concat()
    }

    fn bsd() -> Vec<u8> {
        let first_at = 8 + 60 + 20 + 20;
        let mut index = Vec::new();
        for word in [8, 0, first_at, 4_u32] {
            index.extend_from_slice(&word.to_le_bytes());
        }
        index.extend_from_slice(b"foo\0");
        let index = member("#1/20", &[&b"__.SYMDEF SORTED\0\0\0\0"[..], &index].concat());
        let first = member("#1/8", b"a long.ofirst");
        [&MAGIC[..], &index, &first].concat()
    }

    fn archive(bytes: Vec<u8>) -> Archive {
        Archive::parse(Bytes::from(bytes)).unwrap()
    }

    fn contents<'a>(archive: &'a Archive, member: &Member) -> &'a [u8] {
        &archive.bytes[member.data.start as usize..member.data.end as usize]
    }

    #[test]
    fn gnu_index_leads_to_members() {
        for wide in [false, true] {
            let archive = archive(gnu(wide));
            let found: Vec<_> = archive
                .symbols()
                .unwrap()
                .unwrap()
                .into_iter()
                .map(|(name, offset)| {
                    let member = archive.member_at(offset).unwrap();
                    assert_eq!(member.offset, offset);
                    let data = contents(&archive, &member).to_vec();
                    (archive.bytes[name].to_vec(), member.name, data)
                })
                .collect();
            let expected = [(&b"foo"[..], "a.o", &b"first"[..]), (&b"bar"[..], LONG, &b"second"[..])];
            assert_eq!(found, expected.map(|(s, n, d)| (s.to_vec(), n.to_string(), d.to_vec())));
        }
    }

    #[test]
    fn members_are_those_that_the_index_gives() {
        let archive = archive(gnu(false));
        let members = archive.members().unwrap();
        assert_eq!(members.len(), 2);
        for member in members {
            assert_eq!(archive.member_at(member.offset), Ok(member));
        }
    }

    #[test]
    fn thin_members_are_paths() {
        let archive = archive(thin());
        let members = archive.members().unwrap();
        let seen: Vec<_> = members.iter().map(|m| (m.thin_path.as_deref(), m.data.clone())).collect();
        assert_eq!(seen, [(Some("dir/one.o"), 0..1_000), (Some("two.o"), 0..2_000)]);
        assert_eq!(archive.member_at(members[1].offset).as_ref(), Ok(&members[1]));
        assert_eq!(archive.symbols(), Ok(None));
    }

    #[test]
    fn bsd_names_precede_the_data() {
        let archive = archive(bsd());
        let members = archive.members().unwrap();
        assert_eq!(members.len(), 1);
        assert_eq!((&members[0].name[..], contents(&archive, &members[0])), ("a long.o", &b"first"[..]));
    }

    #[test]
    fn a_member_past_the_end_is_truncated() {
        let mut bytes = gnu(false);
        bytes.truncate(bytes.len() - 1);
        let error = archive(bytes).members().unwrap_err();
        assert!(matches!(error, FormatError::Truncated { need: 6, have: 5, .. }), "{error}");
    }

    #[test]
    fn what_is_no_archive_is_said_to_be_none() {
        let error = Archive::parse(Bytes::from_static(b"\x7fELF")).unwrap_err();
        assert_eq!(error, FormatError::BadMagic { what: "archive", offset: 0, found: *b"\x7fELF" });
        assert_eq!(archive(MAGIC.to_vec()).members(), Ok(vec![]));
    }

    #[test]
    fn damage_never_panics() {
        for valid in [gnu(false), gnu(true), thin(), bsd()] {
            every_damage(&valid, |bytes| {
                let Ok(archive) = Archive::parse(Bytes::copy_from_slice(bytes)) else { return };
                for (name, offset) in archive.symbols().into_iter().flatten().flatten() {
                    assert!(archive.bytes.get(name).is_some());
                    let _ = archive.member_at(offset);
                }
                for member in archive.members().into_iter().flatten() {
                    assert!(archive.thin || member.data.end <= archive.bytes.len() as u64);
                }
            });
        }
    }
}
