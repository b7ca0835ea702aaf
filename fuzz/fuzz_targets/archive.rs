//! An archive: its index, its members, and a link that may pull them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relink::{Input, LinkSession};
use relink_formats::Bytes;
use relink_formats::archive::Archive;

fuzz_target!(|data: &[u8]| {
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
        let mut session = LinkSession::new(relink_fuzz::options(whole)).expect("the options are sound");
        let library = Input::bytes("lib.a", data.to_vec());
        session.add_input(if whole { library.whole() } else { library });
        let _ = session.resolve();
    }
});
