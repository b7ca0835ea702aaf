//! A shared library: what it says of itself, and a program that uses its names.

use relink::{DynamicOptions, Input, LinkOptions, LinkSession, OutputKind};
use relink_formats::Bytes;
use relink_formats::shared_object::SharedObject;

use super::tiny;

/// Names of the library that the program uses.
const USED_MAX: usize = 4;

/// No panic; ranges lie in the file; an image made with it can be read.
pub(super) fn judge(data: &[u8]) {
    SharedObject::is_shared(data);
    let mut names = vec!["first".to_owned()];
    if let Ok(library) = SharedObject::parse(Bytes::copy_from_slice(data)) {
        let inside = |range: &std::ops::Range<u32>| {
            assert!(range.start <= range.end && range.end as usize <= data.len(), "{range:?}");
        };
        library.needed.iter().chain(&library.soname).for_each(inside);
        for version in library.versions.iter().chain(&library.needed_versions) {
            inside(&version.name);
        }
        for symbol in &library.symbols {
            inside(&symbol.name);
            assert!(!symbol.defined || symbol.version < 2 || library.version_name(symbol.version).is_some());
        }
        for symbol in library.symbols.iter().take(USED_MAX) {
            assert!(!symbol.can_be_copied() || library.aliases(symbol).any(|other| other == symbol));
            names.extend(String::from_utf8(library.name(&symbol.name).to_vec()));
        }
        let _ = (library.interface_hash(), library.soname());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for kind in [OutputKind::Executable, OutputKind::Pie] {
        let mut session = LinkSession::new(options(kind)).expect("the options are sound");
        session.add_input(Input::bytes("start.o", tiny::start()));
        session.add_input(Input::bytes("work.o", tiny::work(1, 0)));
        session.add_input(Input::bytes("user.o", tiny::user(&names)));
        session.add_input(Input::bytes("lib.so", data.to_vec()));
        if session.resolve().is_ok() {
            super::assert_readable(&session.image());
        }
    }
}

fn options(output_kind: OutputKind) -> LinkOptions {
    let dynamic = DynamicOptions { interpreter: Some("/lib64/ld.so".into()), ..DynamicOptions::default() };
    LinkOptions { output_kind, dynamic, ..tiny::options(true) }
}
