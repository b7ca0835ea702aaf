//! Values of options: numbers, `--defsym`, `--build-id`, choices.

use std::ffi::OsStr;

use relink::{BuildId, DefsymValue, Expression};

/// A value that must be text.
pub(super) fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("'{}' is not UTF-8", value.to_string_lossy()))
}

/// Puts a good value in its place.
pub(super) fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// A number as ld reads it: decimal, `0x` hexadecimal, `0` octal; `K` and `M` multiply.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a number");
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    if digits.starts_with('+') {
        return Err(wrong());
    }
    let value = u64::from_str_radix(digits, radix).map_err(|_| wrong())?;
    value.checked_mul(factor).ok_or_else(wrong)
}

/// A number without prefix is hexadecimal where ld has always taken it so (addresses of `-Ttext-segment`).
pub(super) fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| format!("'{text}' is not an address"))
}

/// A number of percent.
pub(super) fn percent(text: &str) -> Result<u32, String> {
    let value = number(text.strip_suffix('%').unwrap_or(text))?;
    u32::try_from(value)
        .ok()
        .filter(|&percent| percent <= 1000)
        .ok_or_else(|| format!("{text} percent is too much"))
}

/// `NAME=EXPRESSION`.
pub(super) fn defsym(text: &str) -> Result<(String, DefsymValue), String> {
    let wrong = || format!("'{text}' is not NAME=EXPRESSION");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let (name, value) = (name.trim(), value.trim());
    if !is_symbol(name) || value.is_empty() {
        return Err(wrong());
    }
    let value = Expression::parse(value).and_then(DefsymValue::of).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value))
}

fn is_symbol(text: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$' | b'@') || b >= 0x80;
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(byte)
}

/// The value of `--build-id`. The bytes of a UUID are drawn later: parsing has no dice.
pub(super) fn build_id(text: &str) -> Result<BuildId, String> {
    Ok(match text {
        "" | "tree" | "sha1" => BuildId::Tree { len: 20 },
        "md5" => BuildId::Tree { len: 16 },
        "fast" => BuildId::Tree { len: 8 },
        "uuid" => BuildId::Uuid([0; 16]),
        "none" => BuildId::None,
        _ => {
            let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            let hex = hex.ok_or("the styles are none, fast, md5, sha1, tree, uuid and 0xHEX")?;
            // As ld: bytes may be parted.
            let digits: Vec<u8> = hex.bytes().filter(|byte| !matches!(byte, b'-' | b':')).collect();
            let bytes: Option<Vec<u8>> = digits
                .chunks(2)
                .map(|pair| match pair {
                    [high, low] => Some((hex_digit(*high)? << 4) | hex_digit(*low)?),
                    _ => None,
                })
                .collect();
            match bytes {
                Some(bytes) if !bytes.is_empty() => BuildId::Hex(bytes),
                _ => return Err(format!("'{text}' is no even number of hexadecimal digits")),
            }
        }
    })
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("'{text}' is not one of {}", names.join(", "))
    })
}

/// The best of `known` for a misspelt word, if one is near enough.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let distance = |name: &&str| strsim::damerau_levenshtein(word, name);
    let best = known.into_iter().min_by_key(distance)?;
    (distance(&best) <= limit).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in
            [("0", 0), ("10", 10), ("0x1F", 31), ("010", 8), ("64K", 65536), ("0x2M", 2 << 20)]
        {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in ["", "x", "0x", "-1", "+1", "9z", "99999999999999999999", "0xffffffffffffffffK", "K"] {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!((address("400000"), address("0x400000")), (Ok(0x40_0000), Ok(0x40_0000)));
        assert_eq!((percent("25"), percent("0%")), (Ok(25), Ok(0)));
        assert!(percent("4000").is_err());
    }

    #[test]
    fn defsyms() {
        let symbol = |name: &str, offset| DefsymValue::Symbol(name.to_owned(), offset);
        for (text, value) in [
            ("a=0x10", DefsymValue::Absolute(16)),
            ("a=b", symbol("b", 0)),
            ("a = .text.b + 0x10", symbol(".text.b", 16)),
            ("a=b-1", symbol("b", -1)),
            ("a=(b)+2*3", symbol("b", 6)),
            ("a=1?2:3", DefsymValue::Absolute(2)),
        ] {
            assert_eq!(defsym(text), Ok(("a".to_owned(), value)), "{text}");
        }
        for text in ["a=b*2", "a=b-c", "a=DEFINED(a)?a:1", "a=SIZEOF(.text)"] {
            assert!(matches!(defsym(text), Ok((_, DefsymValue::Expression(_)))), "{text}");
        }
        for text in ["a", "=1", "a=", "1=2", "a=b+", "a=(b", "a=1/0", "a=."] {
            assert!(defsym(text).is_err(), "{text}");
        }
    }

    #[test]
    fn build_ids() {
        assert_eq!(build_id(""), Ok(BuildId::Tree { len: 20 }));
        assert_eq!(build_id("md5"), Ok(BuildId::Tree { len: 16 }));
        assert_eq!(build_id("fast"), Ok(BuildId::Tree { len: 8 }));
        assert_eq!(build_id("0xDEad-be:ef"), Ok(BuildId::Hex(vec![0xde, 0xad, 0xbe, 0xef])));
        for text in ["sha3", "0x", "0xabc", "0xzz", "0x+1"] {
            assert!(build_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nearest_words() {
        assert_eq!(nearest("--gc-section", ["--gc-sections", "--gc"]), Some("--gc-sections"));
        assert_eq!(nearest("sqlite", ["m", "c", "z"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
