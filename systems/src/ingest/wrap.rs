//! `--wrap`: which name a reference means. Definitions keep theirs.

/// What a reference to `name` means instead, if `--wrap` says so.
///
/// # Source
/// GNU ld, "Command-line Options", `--wrap`: only undefined references are changed, so a unit that defines `NAME` goes
/// on calling its own.
pub(crate) fn wrapped(wrap: &[String], name: &[u8]) -> Option<Vec<u8>> {
    let listed = |name: &[u8]| wrap.iter().any(|known| known.as_bytes() == name);
    if wrap.is_empty() {
        None
    } else if listed(name) {
        Some([b"__wrap_", name].concat())
    } else {
        name.strip_prefix(b"__real_").filter(|name| listed(name)).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn references_are_turned_round() {
        let wrap = ["f".to_owned(), "__wrap_f".to_owned()];
        let meant =
            |name: &str| wrapped(&wrap[..1], name.as_bytes()).map(|name| String::from_utf8(name).unwrap());
        assert_eq!(meant("f").as_deref(), Some("__wrap_f"));
        assert_eq!(meant("__real_f").as_deref(), Some("f"));
        for other in ["g", "__real_g", "__wrap_f", "ff", "__real_", ""] {
            assert_eq!(meant(other), None, "{other}");
        }
        // Once only: what a reference means is not wrapped again.
        assert_eq!(wrapped(&wrap, b"f").as_deref(), Some(&b"__wrap_f"[..]));
        assert_eq!(wrapped(&[], b"f"), None);
    }
}
