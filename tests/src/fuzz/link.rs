//! A damaged object in a link: from nothing, and as an edit of a good program, which the oracle then judges.

use relink::{GateKind, Input, Outcome};

use super::tiny;

/// No panic; a patch passes the oracle, an error leaves the image.
pub(super) fn judge(data: &[u8]) {
    let mut fresh = tiny::session(false, data.to_vec()).0;
    if fresh.resolve().is_ok() {
        super::assert_readable(&fresh.image());
    }
    for gate in [GateKind::Strict, GateKind::Wide] {
        let (mut session, work) = tiny::session_behind(gate, tiny::work(1, 0));
        session.resolve().expect("the program links");
        let mut before = session.image().into_owned();
        // There, and back again from what it left.
        for object in [data.to_vec(), tiny::work(1, 0)] {
            session.replace_input(work, Input::bytes("work.o", object)).expect("the session has it");
            match session.resolve() {
                Ok(Outcome::Patched) => assert_eq!(session.verify().expect("a full link of it works"), []),
                Ok(_) => {}
                Err(_) => assert!(session.image() == before, "a frame that fails changes nothing"),
            }
            before = session.image().into_owned();
        }
    }
}
