//! How the state grows with patches, and when it is written anew.

use super::*;

#[test]
fn other_state_of_the_same_image_is_appended_and_long_ones_are_written_anew() {
    let work = Work::new();
    work.link();
    let remarks = ["identities changed".to_owned(), "x".repeat(40 << 10), "y".repeat(40 << 10)];
    let expected = ["state-1", "state-1", "state-4"];
    for (remark, state) in remarks.into_iter().zip(expected) {
        let mut stub = Stub { remark, ..Stub::default() };
        link_with(&mut stub, work.request(), &SystemIo).unwrap();
        assert_eq!(
            work.folder_names(),
            ["command", "current", "current.new", "image-1", "lock", "log", "resolved", state]
        );
    }
    work.edit("a.o", "three");
    assert_eq!(work.link().report.outcome, Outcome::Patched);
    assert_eq!(work.output(), "three two");
    assert_eq!(
        work.folder_names(),
        ["command", "current", "current.new", "image-1", "lock", "log", "patch-5", "resolved", "state-4"]
    );
}

/// The state never outgrows its bounds, and is written anew when its log has been replayed for long enough, not before.
#[test]
fn log_is_bounded_by_its_length_and_by_what_its_replay_has_cost() {
    const MIB: u64 = 1 << 20;
    // Bytes of a state, bytes of what each patch appends, patches between two states by either bound.
    for (base, record, expected) in [(32_u64, 200_u64, 130), (32, 20_000, 3), (2 * MIB, 64 << 10, 7)] {
        let work = Work::new();
        let (mut written, mut longest, mut replayed) = (Vec::new(), 0, 0);
        let link = |remark: u64, number: u64| {
            let length = usize::try_from(remark).unwrap();
            let mut remark = format!("{number:08}");
            remark.extend(std::iter::repeat_n('x', length - 8));
            work.edit("a.o", &format!("edit {number}"));
            link_with(&mut Stub { remark, ..Stub::default() }, work.request(), &SystemIo).unwrap()
        };
        link(base, 0);
        let mut state = work.state_name();
        let first = work.folder().join(&state).metadata().unwrap().len();
        for number in 1..=expected * 3 {
            replayed += work.folder().join(&state).metadata().unwrap().len() - first;
            assert_eq!(link(record, number).report.outcome, Outcome::Patched);
            let length = work.folder().join(work.state_name()).metadata().unwrap().len();
            if work.state_name() != state {
                // The stub's whole state is one more record: the same bounds hold for what follows.
                state = work.state_name();
                written.push(number);
                break;
            }
            longest = longest.max(length - first);
        }
        assert!(longest <= log_bytes_max(first), "{base} {record}: a log of {longest}");
        assert!(replayed <= replayed_bytes_max(first) + log_bytes_max(first), "{base} {record}: {replayed}");
        let [number] = written[..] else { panic!("{base} {record}: no state was written anew") };
        assert!((expected..=expected + expected / 4 + 1).contains(&number), "{base} {record}: {number}");
    }
}
