//! Compressed debug sections: `SHF_COMPRESSED` with zlib or zstd, and the older `.zdebug_` ones.
//!
//! Output is cut in chunks that are compressed independently of each other, so that threads can share the work.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use object::LittleEndian as LE;
use object::elf::{self, CompressionHeader64};
use object::endian::{U32, U64};
use object::pod;
use ruzstd::decoding::FrameDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::error::FormatError;
use crate::units::Align;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `ELFCOMPRESS_ZLIB`.
    Zlib,
    /// `ELFCOMPRESS_ZSTD`.
    Zstd,
}

/// What stands in front of compressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How they are compressed.
    pub algorithm: Algorithm,
    /// Bytes before compression.
    pub size: u64,
    /// Alignment of these; of `.zdebug_` the section header tells.
    pub align: Option<Align>,
    /// Where the compressed bytes begin in the section.
    pub start: usize,
}

/// Size of an `Elf64_Chdr`. Units: bytes.
pub const HEADER_LEN: u64 = size_of::<CompressionHeader64<LE>>() as u64;

/// Bytes that are compressed by themselves: as lld.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Reads the header of an `SHF_COMPRESSED` section.
///
/// # Errors
/// `Truncated`, `BadValue` for an alignment that is none, `Unsupported` for another algorithm. Offsets count from the
/// start of the section.
///
/// # Source
/// gABI, "Section Compression".
pub fn header(section: &[u8]) -> Result<Header, FormatError> {
    let Ok((header, _)) = pod::from_bytes::<CompressionHeader64<LE>>(section) else {
        let have = section.len() as u64;
        return Err(FormatError::Truncated { what: "compression header", offset: 0, need: HEADER_LEN, have });
    };
    let algorithm = match header.ch_type.get(LE) {
        elf::ELFCOMPRESS_ZLIB => Algorithm::Zlib,
        elf::ELFCOMPRESS_ZSTD => Algorithm::Zstd,
        other => {
            let what = format!("compression of type {}: only zlib and zstd", other.0);
            return Err(FormatError::Unsupported { what, offset: 0 });
        }
    };
    let align = header.ch_addralign.get(LE);
    let what = "alignment of compressed section";
    let known = Align::from_bytes(align).ok_or(FormatError::BadValue { what, value: align, offset: 16 })?;
    let (size, start) = (header.ch_size.get(LE), HEADER_LEN as usize);
    Ok(Header { algorithm, size, align: Some(known), start })
}

/// Reads the header of a `.zdebug_` section.
///
/// # Errors
/// `BadMagic`, `Truncated`.
pub fn old_header(section: &[u8]) -> Result<Header, FormatError> {
    let Some((magic, rest)) = section.split_first_chunk::<4>().filter(|(magic, _)| *magic == b"ZLIB") else {
        let mut found = [0; 4];
        found.iter_mut().zip(section).for_each(|(to, from)| *to = *from);
        return Err(FormatError::BadMagic { what: "ZLIB", offset: 0, found });
    };
    let Some(size) = rest.first_chunk::<8>() else {
        let have = rest.len() as u64;
        return Err(FormatError::Truncated { what: "size of compressed section", offset: 4, need: 8, have });
    };
    let start = magic.len() + size.len();
    Ok(Header { algorithm: Algorithm::Zlib, size: u64::from_be_bytes(*size), align: None, start })
}

/// The bytes of a section before it was compressed: exactly as many as the header says, which is what is allocated.
///
/// # Errors
/// In words, if they are not what the header says.
pub fn inflate(header: &Header, section: &[u8]) -> Result<Vec<u8>, String> {
    let packed = section.get(header.start..).unwrap_or_default();
    let size = usize::try_from(header.size).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; size];
    let len = match header.algorithm {
        Algorithm::Zlib => {
            let mut state = Decompress::new(true);
            match state.decompress(packed, &mut bytes, FlushDecompress::Finish) {
                Ok(Status::StreamEnd) => state.total_out() as usize,
                Ok(_) => return Err("it does not end where its header says".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Algorithm::Zstd => {
            FrameDecoder::new().decode_all(packed, &mut bytes).map_err(|error| error.to_string())?
        }
    };
    match len == size {
        true => Ok(bytes),
        false => Err(format!("it has {len} bytes and not {size}")),
    }
}

/// A chunk of at most [`CHUNK_BYTES`] by itself; `last` if it is the section's last one.
pub fn deflate_chunk(algorithm: Algorithm, chunk: &[u8], last: bool) -> Vec<u8> {
    match algorithm {
        Algorithm::Zstd => compress_to_vec(chunk, CompressionLevel::Fastest),
        Algorithm::Zlib => {
            let mut state = Compress::new(Compression::fast(), false);
            // A stored block has 5 bytes for 64 KiB, and the flush has 5 more.
            let mut out = Vec::with_capacity(chunk.len() + chunk.len() / 1000 + 64);
            let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
            loop {
                let rest = chunk.get(state.total_in() as usize..).unwrap_or_default();
                let done = state.compress_vec(rest, &mut out, flush);
                let whole = state.total_in() as usize == chunk.len() && out.len() < out.capacity();
                match done {
                    Ok(Status::StreamEnd) | Err(_) => return out,
                    Ok(_) if !last && whole => return out,
                    Ok(_) => {}
                }
                out.reserve(CHUNK_BYTES / 16);
            }
        }
    }
}

/// A whole section of compressed chunks.
pub fn join(algorithm: Algorithm, original: &[u8], align: Align, chunks: &[Vec<u8>]) -> Vec<u8> {
    let kind = match algorithm {
        Algorithm::Zlib => elf::ELFCOMPRESS_ZLIB,
        Algorithm::Zstd => elf::ELFCOMPRESS_ZSTD,
    };
    let header = CompressionHeader64::<LE> {
        ch_type: U32::new(LE, kind),
        ch_reserved: U32::new(LE, 0),
        ch_size: U64::new(LE, original.len() as u64),
        ch_addralign: U64::new(LE, align.bytes()),
    };
    let mut out = pod::bytes_of(&header).to_vec();
    if algorithm == Algorithm::Zlib {
        out.extend_from_slice(&[0x78, 0x01]); // Deflate, window of 32 KiB, fastest: RFC 1950, 2.2.
    }
    chunks.iter().for_each(|chunk| out.extend_from_slice(chunk));
    if algorithm == Algorithm::Zlib {
        out.extend_from_slice(&adler32(original).to_be_bytes());
    }
    out
}

/// RFC 1950, 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65521;
    /// As many bytes as sums of 32 bits hold before they must be reduced.
    const RUN: usize = 5552;
    let (mut low, mut high) = (1_u32, 0_u32);
    for run in bytes.chunks(RUN) {
        for byte in run {
            low += u32::from(*byte);
            high += low;
        }
        low %= MODULUS;
        high %= MODULUS;
    }
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        let mut state = 7_u32;
        (0..len)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 7 < 5 { (at / 1000) as u8 } else { (state >> 24) as u8 }
            })
            .collect()
    }

    fn packed(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
        let count = bytes.chunks(CHUNK_BYTES).count();
        let chunks: Vec<Vec<u8>> = bytes
            .chunks(CHUNK_BYTES)
            .enumerate()
            .map(|(at, chunk)| deflate_chunk(algorithm, chunk, at + 1 == count))
            .collect();
        join(algorithm, bytes, Align::from_exponent(3), &chunks)
    }

    #[test]
    fn sections_survive_both_ways() {
        for algorithm in [Algorithm::Zlib, Algorithm::Zstd] {
            for len in [1, 5000, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 77] {
                let bytes = sample(len);
                let section = packed(algorithm, &bytes);
                let header = header(&section).unwrap();
                assert_eq!((header.algorithm, header.size), (algorithm, len as u64));
                assert_eq!(header.align, Some(Align::from_exponent(3)));
                assert!(inflate(&header, &section).unwrap() == bytes, "{algorithm:?} {len}");
                assert!(
                    len < 5000 || section.len() < len * 3 / 4,
                    "{algorithm:?}: {} of {len}",
                    section.len()
                );
            }
        }
    }

    #[test]
    fn what_can_not_be_compressed_survives() {
        let noise: Vec<u8> = (0..CHUNK_BYTES as u64)
            .map(|at| {
                (at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(at | 1) >> 56) as u8
            })
            .collect();
        for algorithm in [Algorithm::Zlib, Algorithm::Zstd] {
            let section = packed(algorithm, &noise);
            assert!(inflate(&header(&section).unwrap(), &section).unwrap() == noise);
        }
    }

    #[test]
    fn wrong_sizes_and_damage_are_told() {
        for algorithm in [Algorithm::Zlib, Algorithm::Zstd] {
            let bytes = sample(100_000);
            let section = packed(algorithm, &bytes);
            let good = header(&section).unwrap();
            for size in [0, 1, 99_999, 100_001] {
                assert!(inflate(&Header { size, ..good }, &section).is_err(), "{algorithm:?} {size}");
            }
            for end in [0, 10, 24, 25, section.len() / 2, section.len() - 1] {
                let cut = &section[..end];
                assert!(header(cut).is_err() || inflate(&good, cut).is_err(), "{algorithm:?} {end}");
            }
            for at in (24..section.len()).step_by(97) {
                let mut damaged = section.clone();
                damaged[at] ^= 0x55;
                let _ = inflate(&good, &damaged); // Any answer but a panic.
            }
        }
        let mut other = packed(Algorithm::Zlib, b"abc");
        other[0] = 9;
        assert!(matches!(header(&other), Err(FormatError::Unsupported { .. })));
        other[0] = 1;
        other[16] = 3;
        assert!(matches!(header(&other), Err(FormatError::BadValue { value: 3, .. })));
    }

    #[test]
    fn old_sections_are_read() {
        let bytes = sample(1000);
        let new = packed(Algorithm::Zlib, &bytes);
        let old = [&b"ZLIB\0\0\0\0\0\0\x03\xe8"[..], &new[HEADER_LEN as usize..]].concat();
        assert_eq!(inflate(&old_header(&old).unwrap(), &old).unwrap(), bytes);
        assert!(matches!(old_header(b"ZLI"), Err(FormatError::BadMagic { .. })));
        assert!(matches!(old_header(b"ZLIB\0"), Err(FormatError::Truncated { .. })));
    }
}
