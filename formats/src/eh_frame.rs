//! Call frame records: reading and shaping `.eh_frame`, and the sorted table of `.eh_frame_hdr`.
//!
//! Records are found and moved, not interpreted: only what a linker must know of a CIE is decoded.

use crate::cursor::Cursor;
use crate::error::FormatError;

/// `DW_EH_PE_omit`: there is no such value.
const OMIT: u8 = 0xff;
const PCREL: u8 = 0x10;
const INDIRECT: u8 = 0x80;
const SDATA4: u8 = 0x0b;
const UDATA4: u8 = 0x03;
const DATAREL: u8 = 0x30;
/// Lengths from here on are reserved: the last one announces a 64-bit length.
const LENGTH_LIMIT: u32 = 0xffff_fff0;

/// One record of an `.eh_frame` section. Offsets and lengths in bytes; `len` counts its length word too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// What its FDEs have in common.
    Cie {
        /// From the start of the section.
        offset: u32,
        /// Whole size.
        len: u32,
    },
    /// Unwinding of one range of code.
    Fde {
        /// From the start of the section.
        offset: u32,
        /// Whole size.
        len: u32,
        /// The offset of its CIE.
        cie: u32,
    },
    /// A zero length word: a reader of the section from its start stops here.
    Terminator {
        /// From the start of the section.
        offset: u32,
    },
}

/// All records, in order; those behind a terminator too.
///
/// # Errors
/// A record runs past the end, has a 64-bit length, or its CIE pointer leads to no earlier CIE.
///
/// # Source
/// LSB Core, "Exception Frames", "The .eh_frame section".
pub fn records(bytes: &[u8]) -> Result<Vec<Record>, FormatError> {
    walk(bytes, false)
}

fn walk(bytes: &[u8], stop_at_terminator: bool) -> Result<Vec<Record>, FormatError> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(FormatError::Unsupported { what: ".eh_frame above 4 GiB".into(), offset: 0 });
    }
    let mut records = Vec::new();
    let mut cies: Vec<u32> = Vec::new();
    let mut cursor = Cursor::new(bytes, 0, "call frame record");
    while !cursor.rest().is_empty() {
        // Fits: the section is below 4 GiB, and so are all sums of what has been read from it.
        let offset = cursor.pos() as u32;
        let body_len = cursor.u32()?;
        if body_len == 0 {
            records.push(Record::Terminator { offset });
            if stop_at_terminator {
                break;
            }
            continue;
        }
        if body_len >= LENGTH_LIMIT {
            let what = format!("call frame record with length word {body_len:#x} (64-bit DWARF)");
            return Err(FormatError::Unsupported { what, offset: offset.into() });
        }
        let id_at = cursor.pos() as u32;
        let body = cursor.take(body_len as usize)?;
        let len = body_len + 4;
        match Cursor::new(body, 0, "call frame record").u32().map_err(|error| error.rebased(id_at.into()))? {
            0 => {
                cies.push(offset);
                records.push(Record::Cie { offset, len });
            }
            distance => match id_at.checked_sub(distance).filter(|cie| cies.binary_search(cie).is_ok()) {
                Some(cie) => records.push(Record::Fde { offset, len, cie }),
                None => {
                    let (what, value) = ("CIE pointer", distance.into());
                    return Err(FormatError::BadValue { what, value, offset: id_at.into() });
                }
            },
        }
    }
    Ok(records)
}

/// What a linker must know of a CIE to handle it and its FDEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CieInfo {
    /// `DW_EH_PE_*` of `pc_begin` in its FDEs; `pc_range` has the same format without the application.
    pub fde_encoding: u8,
    /// `DW_EH_PE_*` of the LSDA pointer of its FDEs; `None` if they have none.
    pub lsda_encoding: Option<u8>,
    /// Where in the record the personality pointer is, bytes; `None` if there is none.
    pub personality_offset: Option<u32>,
    /// The frame is that of a signal handler (`S`).
    pub signal_frame: bool,
    /// Its FDEs have a length of augmentation data after their range (`z`).
    pub has_augmentation_data: bool,
    /// Code alignment factor.
    pub code_align: u64,
    /// Data alignment factor.
    pub data_align: i64,
    /// DWARF number of the return address column: 16 on x86-64.
    pub return_register: u64,
}

/// Decodes a CIE. `record` begins with its length word.
///
/// # Errors
/// A short record, another version than 1, 3 and 4, or an augmentation that isn't known: what it adds to the
/// record can't be guessed.
///
/// # Source
/// LSB Core, "Exception Frames", "The Common Information Entry Format"; DWARF 5, 6.4.1 for version 4.
pub fn parse_cie(record: &[u8]) -> Result<CieInfo, FormatError> {
    let mut cie = Cursor::new(record, 8, "CIE");
    let version = cie.u8()?;
    if !matches!(version, 1 | 3 | 4) {
        return Err(FormatError::Unsupported { what: format!("CIE of version {version}"), offset: 8 });
    }
    let augmentation = cie.cstr()?;
    if version == 4 {
        let (address_size, segment_size) = (cie.u8()?, cie.u8()?);
        if (address_size, segment_size) != (8, 0) {
            let what = format!("CIE with addresses of {address_size} and segments of {segment_size} bytes");
            return Err(FormatError::Unsupported { what, offset: 8 });
        }
    }
    let code_align = cie.uleb()?;
    let data_align = cie.sleb()?;
    let return_register = if version == 1 { cie.u8()?.into() } else { cie.uleb()? };
    let mut info = CieInfo {
        fde_encoding: 0,
        lsda_encoding: None,
        personality_offset: None,
        signal_frame: false,
        has_augmentation_data: false,
        code_align,
        data_align,
        return_register,
    };
    let unknown = || {
        let what = format!("CIE augmentation `{}`", String::from_utf8_lossy(augmentation));
        FormatError::Unsupported { what, offset: 9 }
    };
    let letters = match augmentation {
        [] => return Ok(info),
        [b'z', letters @ ..] => letters,
        _ => return Err(unknown()),
    };
    info.has_augmentation_data = true;
    let data_len = cie.uleb()?;
    let data_end = (cie.pos() as u64).checked_add(data_len).filter(|end| *end <= record.len() as u64);
    let Some(data_end) = data_end else {
        let have = cie.rest().len() as u64;
        let what = "CIE augmentation data";
        return Err(FormatError::Truncated { what, offset: cie.pos() as u64, need: data_len, have });
    };
    let record = record.get(..data_end as usize).unwrap_or_default();
    let mut data = Cursor::new(record, cie.pos(), "CIE augmentation data");
    for letter in letters {
        match letter {
            b'R' => info.fde_encoding = data.u8()?,
            b'L' => info.lsda_encoding = Some(data.u8()?).filter(|encoding| *encoding != OMIT),
            b'P' => {
                let encoding = data.u8()?;
                if encoding != OMIT {
                    let size =
                        encoded_size(encoding).ok_or_else(|| encoding_error(encoding, data.pos() - 1))?;
                    info.personality_offset = Some(data.pos() as u32);
                    data.take(size)?;
                }
            }
            b'S' => info.signal_frame = true,
            _ => return Err(unknown()),
        }
    }
    Ok(info)
}

/// The size of a pointer of fixed size; `None` for LEB128 and for `DW_EH_PE_aligned`, whose padding depends
/// on the address.
fn encoded_size(encoding: u8) -> Option<usize> {
    if encoding & 0x70 == 0x50 {
        return None;
    }
    match encoding & 0x0f {
        0x02 | 0x0a => Some(2),
        0x03 | 0x0b => Some(4),
        0x00 | 0x04 | 0x0c => Some(8),
        _ => None,
    }
}

fn encoding_error(encoding: u8, offset: usize) -> FormatError {
    FormatError::Unsupported { what: format!("pointer encoding {encoding:#x}"), offset: offset as u64 }
}

/// The smallest hole that [`fill`] can fill, bytes.
pub const MIN_FILLER: usize = 16;

/// Fills a hole with CIEs that no FDE uses, so that a reader of the section walks over it.
///
/// Never a zero length word: it would end the section for every reader (techniques 2.3, measured).
///
/// # Errors
/// `NoRoom` for a hole below [`MIN_FILLER`], `BadValue` for one that is no multiple of 4. It is unchanged.
pub fn fill(hole: &mut [u8]) -> Result<(), FormatError> {
    // Version 1, no augmentation, code factor 1, data factor -8, return address in column 16.
    const BODY: [u8; 9] = [0, 0, 0, 0, 1, 0, 1, 0x78, 16];
    const LARGEST: usize = 1 << 30;
    let size = hole.len();
    if size < MIN_FILLER {
        let (need, have) = (MIN_FILLER as u64, size as u64);
        return Err(FormatError::NoRoom { what: "call frame filler", offset: 0, need, have });
    }
    if !size.is_multiple_of(4) {
        let what = "size of call frame filler";
        return Err(FormatError::BadValue { what, value: size as u64, offset: 0 });
    }
    let mut rest = hole;
    while !rest.is_empty() {
        let len = match rest.len() {
            all if all <= LARGEST => all,
            // What remains must be large enough for a filler of its own.
            _ => LARGEST - MIN_FILLER,
        };
        let (record, behind) = rest.split_at_mut(len);
        record.fill(0);
        let head = ((len - 4) as u32).to_le_bytes().into_iter().chain(BODY);
        record.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        rest = behind;
    }
    Ok(())
}

/// Lengthens a CIE or FDE to `len` bytes with `DW_CFA_nop` and mends its length word. A record that is
/// longer already, that is no record, or a `len` that needs a 64-bit length, is left as it is.
pub fn pad_record(record: &mut Vec<u8>, len: usize) {
    let Some(body_len) = len.checked_sub(4).and_then(|len| u32::try_from(len).ok()) else { return };
    if record.len() < 4 || len < record.len() || body_len >= LENGTH_LIMIT {
        return;
    }
    record.resize(len, 0);
    record.iter_mut().zip(body_len.to_le_bytes()).for_each(|(to, from)| *to = from);
}

/// An FDE without instructions: the frame is what the CIE's own instructions say, all the way through.
///
/// * `cie_distance` the value of the CIE pointer: bytes from the field, at offset 4 of the FDE, back to the
///   start of the CIE. That is the FDE's offset + 4 - the CIE's offset.
/// * `len_of_code`  bytes that it covers.
///
/// Its size is a multiple of 8. `pc_begin`, at offset 8, is 0 for the caller to set: 4 bytes relative to
/// their own address under the usual encoding 0x1b, 8 bytes if the CIE's encoding is an 8-byte one. An LSDA
/// pointer, if the CIE calls for one, is null.
pub fn island_fde(cie: &CieInfo, cie_distance: u32, len_of_code: u32) -> Vec<u8> {
    let pointer_size = encoded_size(cie.fde_encoding).unwrap_or(4);
    let mut fde = vec![0; 8 + pointer_size];
    fde[4..8].copy_from_slice(&cie_distance.to_le_bytes());
    fde.extend(u64::from(len_of_code).to_le_bytes().iter().take(pointer_size));
    if cie.has_augmentation_data {
        // One zero byte is null in LEB128.
        let lsda_size = cie.lsda_encoding.map_or(0, |encoding| encoded_size(encoding).unwrap_or(1));
        fde.push(lsda_size as u8);
        fde.resize(fde.len() + lsda_size, 0);
    }
    let len = fde.len().next_multiple_of(8);
    pad_record(&mut fde, len);
    fde
}

/// One row of the search table, as stored: both relative to the start of `.eh_frame_hdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HdrEntry {
    /// First address of the code.
    pub pc: i32,
    /// Address of the FDE.
    pub fde: i32,
}

impl HdrEntry {
    /// The row for addresses of code and FDE in a table whose header is at `hdr_addr`; `None` if one of them is
    /// farther than 2 GiB away.
    pub fn new(hdr_addr: u64, pc: u64, fde: u64) -> Option<HdrEntry> {
        let relative = |addr: u64| i32::try_from(addr.wrapping_sub(hdr_addr) as i64).ok();
        Some(HdrEntry { pc: relative(pc)?, fde: relative(fde)? })
    }

    /// As stored.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.pc.to_le_bytes());
        bytes[4..].copy_from_slice(&self.fde.to_le_bytes());
        bytes
    }

    /// From what is stored.
    pub fn from_bytes([a, b, c, d, e, f, g, h]: [u8; 8]) -> HdrEntry {
        HdrEntry { pc: i32::from_le_bytes([a, b, c, d]), fde: i32::from_le_bytes([e, f, g, h]) }
    }
}

const HDR_SIZE: usize = 12;
/// Version 1; `.eh_frame` as pcrel sdata4; the count as udata4; the table as datarel sdata4.
const HDR_START: [u8; 4] = [1, PCREL | SDATA4, UDATA4, DATAREL | SDATA4];

/// Bytes of an `.eh_frame_hdr` with so many entries; also where the entry of that index starts.
pub const fn hdr_len(entries: usize) -> usize {
    HDR_SIZE + 8 * entries
}

/// The bytes of `.eh_frame_hdr`: header, then the table sorted by address, then zeroes.
///
/// * `hdr_addr`, `eh_frame_addr`: virtual addresses of the two sections.
/// * `entries`: (address of the code, address of the FDE), virtual, in any order. Sorted here: an unsorted
///   table makes exceptions end in `terminate`.
/// * `capacity`: bytes of the result. Readers go by the count, so room for more rows does no harm.
///
/// # Errors
/// `NoRoom` if `capacity` is below 12 + 8 per entry; `BadValue` for an address farther than 2 GiB away.
///
/// # Source
/// LSB Core, "Exception Frames", "The .eh_frame_hdr section".
pub fn encode_hdr(
    hdr_addr: u64,
    eh_frame_addr: u64,
    entries: &[(u64, u64)],
    capacity: usize,
) -> Result<Vec<u8>, FormatError> {
    let need = entries.len().saturating_mul(8).saturating_add(HDR_SIZE);
    let Some(count) = u32::try_from(entries.len()).ok().filter(|_| need <= capacity) else {
        let (need, have) = (need as u64, capacity as u64);
        return Err(FormatError::NoRoom { what: ".eh_frame_hdr", offset: 0, need, have });
    };
    let relative = |what, addr: u64, base: u64, offset: usize| {
        let out_of_range = FormatError::BadValue { what, value: addr, offset: offset as u64 };
        i32::try_from(addr.wrapping_sub(base) as i64).map_err(|_| out_of_range)
    };
    let mut table = Vec::with_capacity(entries.len());
    for (index, (pc, fde)) in entries.iter().enumerate() {
        let offset = HDR_SIZE + index * 8;
        let pc = relative("code address in .eh_frame_hdr", *pc, hdr_addr, offset)?;
        let fde = relative("FDE address in .eh_frame_hdr", *fde, hdr_addr, offset + 4)?;
        table.push(HdrEntry { pc, fde });
    }
    table.sort_unstable();
    let eh_frame = relative("address of .eh_frame", eh_frame_addr, hdr_addr.wrapping_add(4), 4)?;
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend_from_slice(&HDR_START);
    bytes.extend_from_slice(&eh_frame.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend(table.into_iter().flat_map(HdrEntry::to_bytes));
    bytes.resize(capacity, 0);
    Ok(bytes)
}

/// The table of an `.eh_frame_hdr` that [`encode_hdr`] or another linker wrote; empty if it has none.
///
/// # Errors
/// Another version or other encodings than those every linker writes, or a count that runs past the end.
pub fn parse_hdr(bytes: &[u8]) -> Result<Vec<HdrEntry>, FormatError> {
    let mut hdr = Cursor::new(bytes, 0, ".eh_frame_hdr");
    let start = hdr.take(4)?;
    match start {
        [1, _, OMIT, _] | [1, _, _, OMIT] => return Ok(Vec::new()),
        start if start == HDR_START => {}
        _ => {
            let what = format!(".eh_frame_hdr that begins with {start:02x?}");
            return Err(FormatError::Unsupported { what, offset: 0 });
        }
    }
    hdr.u32()?;
    let count = hdr.u32()?;
    let size = (count as usize).checked_mul(8).ok_or(FormatError::BadValue {
        what: "FDE count",
        value: count.into(),
        offset: 8,
    })?;
    let (rows, _) = hdr.take(size)?.as_chunks::<8>();
    Ok(rows.iter().copied().map(HdrEntry::from_bytes).collect())
}

/// An FDE of a linked image: first address of its code, bytes of code, offset of the FDE in `.eh_frame`, and
/// address of its LSDA.
pub type FdeRow = (u64, u64, u32, Option<u64>);

/// The FDEs of a linked image up to the terminator, in order. Filler CIEs have none and don't show.
///
/// * `addr`: virtual address of `bytes`.
///
/// # Errors
/// As [`records`] and [`parse_cie`]; and for encodings that need more than the section to be decoded.
pub fn scan_fdes(bytes: &[u8], addr: u64) -> Result<Vec<FdeRow>, FormatError> {
    let mut rows = Vec::new();
    let mut known: Option<(u32, CieInfo)> = None;
    let mut cie_lens = std::collections::HashMap::new();
    for record in walk(bytes, true)? {
        let (offset, len, cie) = match record {
            Record::Cie { offset, len } => {
                cie_lens.insert(offset, len);
                continue;
            }
            Record::Fde { offset, len, cie } => (offset, len, cie),
            Record::Terminator { .. } => break,
        };
        // Nearly always the CIE of the FDE before.
        let info = match known {
            Some((at, info)) if at == cie => info,
            _ => {
                let end = cie as usize + cie_lens.get(&cie).copied().unwrap_or_default() as usize;
                let record = bytes.get(cie as usize..end).unwrap_or_default();
                let info = parse_cie(record).map_err(|error| error.rebased(cie.into()))?;
                known = Some((cie, info));
                info
            }
        };
        // Every position below is one of the section, and so fits the addresses.
        let fde = bytes.get(..offset as usize + len as usize).unwrap_or_default();
        let mut fde = Cursor::new(fde, offset as usize + 8, "FDE");
        let pc = pointer(&mut fde, info.fde_encoding, addr)?.unwrap_or_default();
        let range = pointer(&mut fde, info.fde_encoding & 0x0f, addr)?.unwrap_or_default();
        let mut lsda = None;
        if info.has_augmentation_data {
            let len = fde.uleb()?;
            if let (Some(encoding), true) = (info.lsda_encoding, len > 0) {
                lsda = pointer(&mut fde, encoding, addr)?;
            }
        }
        rows.push((pc, range, offset, lsda));
    }
    Ok(rows)
}

/// A pointer of an image at `addr`; `None` if it is null, which is stored as 0 whatever it is relative to.
/// For `pc_begin`, where 0 is the field's own address, no code can be there either.
fn pointer(cursor: &mut Cursor<'_>, encoding: u8, addr: u64) -> Result<Option<u64>, FormatError> {
    let at = cursor.pos();
    let base = match encoding & (0x70 | INDIRECT) {
        0 => 0,
        PCREL => addr.wrapping_add(at as u64),
        _ => return Err(encoding_error(encoding, at)),
    };
    let raw = match encoding & 0x0f {
        0x00 | 0x04 | 0x0c => cursor.u64()?,
        0x01 => cursor.uleb()?,
        0x02 => cursor.u16()?.into(),
        0x03 => cursor.u32()?.into(),
        0x09 => cursor.sleb()? as u64,
        0x0a => i64::from(cursor.u16()? as i16) as u64,
        0x0b => i64::from(cursor.u32()? as i32) as u64,
        _ => return Err(encoding_error(encoding, at)),
    };
    Ok((raw != 0).then(|| base.wrapping_add(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::every_damage;

    /// The CIE of g++ for code with destructors: "zPLR", indirect pcrel personality, pcrel LSDA and code.
    fn cie() -> Vec<u8> {
        let mut cie = vec![0, 0, 0, 0, 0, 0, 0, 0, 1];
        cie.extend_from_slice(b"zPLR\0");
        cie.extend_from_slice(&[1, 0x78, 16, 7, 0x9b, 0x44, 0x33, 0x22, 0x11, 0x1b, 0x1b]);
        cie.extend_from_slice(&[0x0c, 7, 8, 0x90, 1]);
        pad_record(&mut cie, 32);
        cie
    }

    /// An FDE at `offset`, of a CIE at 0, for code `pc` bytes after the section's start.
    fn fde(offset: u32, pc: u32, range: u32, lsda: i32) -> Vec<u8> {
        let mut fde = vec![0; 4];
        fde.extend_from_slice(&(offset + 4).to_le_bytes());
        fde.extend_from_slice(&pc.wrapping_sub(offset + 8).to_le_bytes());
        fde.extend_from_slice(&range.to_le_bytes());
        fde.push(4);
        fde.extend_from_slice(&lsda.to_le_bytes());
        fde.push(0x41);
        pad_record(&mut fde, 24);
        fde
    }

    fn section() -> Vec<u8> {
        let mut filler = vec![0xcc; 24];
        fill(&mut filler).unwrap();
        [cie(), fde(32, 0x1000, 0x20, 0), filler, fde(80, 0x2000, 0x30, -16), vec![0; 4]].concat()
    }

    #[test]
    fn records_are_found_in_order() {
        let expected = vec![
            Record::Cie { offset: 0, len: 32 },
            Record::Fde { offset: 32, len: 24, cie: 0 },
            Record::Cie { offset: 56, len: 24 },
            Record::Fde { offset: 80, len: 24, cie: 0 },
            Record::Terminator { offset: 104 },
        ];
        assert_eq!(records(&section()), Ok(expected));
    }

    #[test]
    fn bad_records_are_refused() {
        let mut far = section();
        far[36..40].copy_from_slice(&35_u32.to_le_bytes());
        let expected = FormatError::BadValue { what: "CIE pointer", value: 35, offset: 36 };
        assert_eq!(records(&far), Err(expected));
        assert!(matches!(records(&[0xff; 16]), Err(FormatError::Unsupported { offset: 0, .. })));
        assert!(matches!(records(&[8, 0, 0, 0, 0]), Err(FormatError::Truncated { need: 8, have: 1, .. })));
    }

    #[test]
    fn cie_of_gxx() {
        let info = parse_cie(&cie()).unwrap();
        let expected = CieInfo {
            fde_encoding: 0x1b,
            lsda_encoding: Some(0x1b),
            personality_offset: Some(19),
            signal_frame: false,
            has_augmentation_data: true,
            code_align: 1,
            data_align: -8,
            return_register: 16,
        };
        assert_eq!(info, expected);
        assert_eq!(cie()[19..23], [0x44, 0x33, 0x22, 0x11]);
    }

    #[test]
    fn unknown_augmentations_are_refused() {
        for name in [&b"eh"[..], b"zX", b"R"] {
            let record = [&[0; 8][..], &[1], name, &[0, 1, 0x78, 16, 0, 0, 0]].concat();
            assert!(matches!(parse_cie(&record), Err(FormatError::Unsupported { offset: 9, .. })));
        }
    }

    #[test]
    fn fillers_of_all_sizes_are_one_record_without_fdes() {
        for size in (MIN_FILLER..200).step_by(4) {
            let mut hole = vec![0xcc; size];
            fill(&mut hole).unwrap();
            assert_eq!(records(&hole), Ok(vec![Record::Cie { offset: 0, len: size as u32 }]));
            let info = parse_cie(&hole).unwrap();
            assert_eq!((info.code_align, info.data_align, info.return_register), (1, -8, 16));
            assert_eq!(scan_fdes(&hole, 0), Ok(vec![]));
        }
        assert!(matches!(fill(&mut [0; 12]), Err(FormatError::NoRoom { need: 16, have: 12, .. })));
        assert!(matches!(fill(&mut [0; 18]), Err(FormatError::BadValue { value: 18, .. })));
    }

    #[test]
    fn scan_finds_code_and_lsda() {
        let addr = 0x40_0000;
        // The LSDA field of the second FDE is at 80 + 17.
        let expected = vec![(addr + 0x1000, 0x20, 32, None), (addr + 0x2000, 0x30, 80, Some(addr + 97 - 16))];
        assert_eq!(scan_fdes(&section(), addr), Ok(expected));
    }

    #[test]
    fn scan_stops_at_the_terminator() {
        let behind = [section(), vec![0xff; 8]].concat();
        assert_eq!(scan_fdes(&behind, 0), scan_fdes(&section(), 0));
    }

    #[test]
    fn island_fde_is_read_back() {
        let info = parse_cie(&cie()).unwrap();
        let offset = 32_u32;
        let mut island = island_fde(&info, offset + 4, 0x777);
        assert_eq!(island.len() % 8, 0);
        island[8..12].copy_from_slice(&(0x5000_u32 - (offset + 8)).to_le_bytes());
        let bytes = [cie(), island].concat();
        assert_eq!(scan_fdes(&bytes, 0), Ok(vec![(0x5000, 0x777, offset, None)]));
    }

    #[test]
    fn hdr_is_sorted_and_read_back() {
        let entries = [(0x5000, 0x9100), (0x1000, 0x9040), (0x3000, 0x9080)];
        let bytes = encode_hdr(0x8000, 0x9000, &entries, 64).unwrap();
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[..12], [1, 0x1b, 3, 0x3b, 0xfc, 0x0f, 0, 0, 3, 0, 0, 0]);
        let rows = parse_hdr(&bytes).unwrap();
        let back: Vec<_> =
            rows.iter().map(|row| (0x8000 + i64::from(row.pc), 0x8000 + i64::from(row.fde))).collect();
        assert_eq!(back, [(0x1000, 0x9040), (0x3000, 0x9080), (0x5000, 0x9100)]);
    }

    #[test]
    fn hdr_refuses_what_does_not_fit() {
        let full = encode_hdr(0, 0, &[(1, 1), (2, 2)], 27);
        assert_eq!(full, Err(FormatError::NoRoom { what: ".eh_frame_hdr", offset: 0, need: 28, have: 27 }));
        assert!(matches!(encode_hdr(0, 0, &[(1 << 31, 1)], 64), Err(FormatError::BadValue { .. })));
        assert_eq!(parse_hdr(&[1, 0x1b, 0xff, 0xff, 0, 0, 0, 0]), Ok(vec![]));
    }

    #[test]
    fn damage_never_panics() {
        every_damage(&section(), |bytes| {
            for record in records(bytes).into_iter().flatten() {
                if let Record::Cie { offset, len } = record {
                    let record = &bytes[offset as usize..offset as usize + len as usize];
                    if let Ok(info) = parse_cie(record) {
                        assert_eq!(island_fde(&info, 4, 8).len() % 8, 0);
                    }
                }
            }
            let _ = scan_fdes(bytes, u64::MAX - 3);
        });
        every_damage(&cie(), |bytes| {
            let _ = parse_cie(bytes);
        });
        let hdr = encode_hdr(0x8000, 0x9000, &[(0x5000, 0x9100), (0x1000, 0x9040)], 40).unwrap();
        every_damage(&hdr, |bytes| {
            let _ = parse_hdr(bytes);
        });
    }
}
