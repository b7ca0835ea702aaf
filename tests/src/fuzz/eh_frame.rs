//! Call frame records, and the header that is made of them.

use relink_formats::eh_frame::{
    Record, encode_hdr, fill, island_fde, pad_record, parse_cie, parse_hdr, records, scan_fdes,
};

/// No panic; a header made of them can be read again.
pub(super) fn judge(data: &[u8]) {
    let _ = parse_cie(data);
    let _ = parse_hdr(data);
    for record in records(data).into_iter().flatten() {
        let Record::Cie { offset, len } = record else { continue };
        let bytes = &data[offset as usize..offset as usize + len as usize];
        if let Ok(info) = parse_cie(bytes) {
            assert_eq!(island_fde(&info, offset, len).len() % 8, 0);
        }
        let mut padded = bytes.to_vec();
        pad_record(&mut padded, bytes.len() + 8);
        assert!(fill(&mut padded).is_err() || records(&padded).is_ok());
    }
    if let Ok(found) = scan_fdes(data, 0x40_0000) {
        let entries: Vec<(u64, u64)> =
            found.iter().map(|row| (row.0, 0x40_0000 + u64::from(row.2))).collect();
        if let Ok(header) = encode_hdr(0x41_0000, 0x40_0000, &entries, 12 + 8 * entries.len()) {
            assert_eq!(parse_hdr(&header).map(|rows| rows.len()), Ok(entries.len()));
        }
    }
}
