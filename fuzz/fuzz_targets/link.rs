//! A damaged object in a link: from nothing, and as an edit of a good program, which the oracle then judges.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relink::{Input, Outcome};

fuzz_target!(|data: &[u8]| {
    let _ = relink_fuzz::session(false, data.to_vec()).0.resolve();
    let (mut session, work) = relink_fuzz::session(true, relink_fuzz::work(1, 0));
    session.resolve().expect("the program links");
    let before = session.image().into_owned();
    session.replace_input(work, Input::bytes("work.o", data.to_vec())).expect("the session has it");
    match session.resolve() {
        Ok(Outcome::Patched) => assert_eq!(session.verify().expect("a full link of it works"), []),
        Ok(_) => {}
        Err(_) => assert!(session.image() == before, "a frame that fails changes nothing"),
    }
});
