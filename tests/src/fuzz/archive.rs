//! An archive: its index, its members, and a link that may pull them.

use relink::{Input, LinkSession};
use relink_formats::Bytes;
use relink_formats::archive::Archive;

use super::tiny;

/// No panic; also as the only input of a link, with and without `--whole-archive`, and as one that a program pulls from.
pub(super) fn judge(data: &[u8]) {
    if !Archive::is_archive(data) {
        return;
    }
    if let Ok(archive) = Archive::parse(Bytes::copy_from_slice(data)) {
        if let Ok(Some(symbols)) = archive.symbols() {
            for (name, member) in symbols {
                assert!(data.get(name).is_some());
                let _ = archive.member_at(member);
            }
        }
        for member in archive.members().into_iter().flatten().filter(|_| !archive.thin) {
            assert!(member.data.start <= member.data.end && member.data.end <= data.len() as u64);
        }
    }
    for whole in [false, true] {
        let mut session = LinkSession::new(tiny::options(whole)).expect("the options are sound");
        let library = Input::bytes("lib.a", data.to_vec());
        session.add_input(if whole { library.whole() } else { library });
        let _ = session.resolve();
    }
    let mut session = LinkSession::new(tiny::options(true)).expect("the options are sound");
    session.add_input(Input::bytes("start.o", tiny::start()));
    session.add_input(Input::bytes("lib.a", data.to_vec()));
    if session.resolve().is_ok() {
        super::assert_readable(&session.image());
    }
}
