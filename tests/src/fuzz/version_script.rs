//! A version script, or a dynamic list: what it says of names, and a library that is linked with it.

use relink::{Input, LinkOptions, LinkSession, OutputKind};
use relink_formats::version_script::VersionScript;

use super::tiny;

/// No panic; names that stand in it without wildcards are assigned as they are listed.
pub(super) fn judge(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    if let Ok(script) = VersionScript::parse(&text) {
        for (name, assigned) in script.exact_names() {
            // Patterns for demangled names come into it only if there are such.
            assert_eq!(script.assign(name, || Some("\u{1}none".to_owned())), assigned, "{name:?}");
        }
        for name in ["", "first", "second", "word", "_ZN1A1fEv", "a*b", "\u{fffd}"] {
            script.assign(name.as_bytes(), || Some("A::f()".to_owned()));
        }
        let _ = (script.is_nameless(), VersionScript::merge([script.clone(), script]));
    }
    for is_list in [false, true] {
        let mut options = LinkOptions { output_kind: OutputKind::SharedLibrary, ..tiny::options(true) };
        let texts =
            if is_list { &mut options.dynamic.dynamic_lists } else { &mut options.dynamic.version_scripts };
        texts.push(text.clone());
        let Ok(mut session) = LinkSession::new(options) else { continue };
        session.add_input(Input::bytes("work.o", tiny::work(1, 0)));
        if session.resolve().is_ok() {
            super::assert_readable(&session.image());
        }
    }
}
