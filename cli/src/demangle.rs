//! Names as their authors wrote them.

use cpp_demangle::{DemangleOptions, Symbol};

/// The readable form of a C++ or Rust symbol; any other name as it is.
///
/// Rust is tried first: its older mangling is valid C++ too, and would keep its hash there.
pub(crate) fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    if name.starts_with("_Z")
        && let Ok(symbol) = Symbol::new(name)
        && let Ok(text) = symbol.demangle_with_options(&DemangleOptions::default())
    {
        return text;
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_of_three_languages() {
        assert_eq!(demangle("_ZN2ns7computeEid"), "ns::compute(int, double)");
        assert_eq!(
            demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"),
            "core::fmt::Write::write_fmt"
        );
        assert_eq!(demangle("_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(demangle("_start"), "_start");
        assert_eq!(demangle("_Z"), "_Z");
    }
}
