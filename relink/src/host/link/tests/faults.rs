//! Each changing call of a link fails once, or is the last one.

use super::*;

/// What a link finds, for the tests that make each of its calls fail.
struct Scene {
    name: &'static str,
    library: bool,
    exchange: bool,
    /// After a first link of "one two".
    set: fn(&Work),
    /// What the output is then; none if it was removed.
    before: Option<&'static str>,
}

impl Scene {
    const ALL: [Scene; 8] = {
        const PLAIN: Scene = Scene {
            name: "first patch",
            library: false,
            exchange: true,
            set: |work| work.edit("b.o", "edited"),
            before: Some("one two"),
        };
        [
            PLAIN,
            Scene {
                name: "second patch",
                set: |work| {
                    work.edit("a.o", "first");
                    work.link();
                    work.edit("a.o", "one");
                    work.edit("b.o", "edited");
                },
                before: Some("first two"),
                ..PLAIN
            },
            Scene { name: "no exchange", exchange: false, ..PLAIN },
            Scene { name: "shared library", library: true, ..PLAIN },
            Scene {
                name: "removed output",
                set: |work| {
                    fs::remove_file(work.path("out")).unwrap();
                    work.edit("b.o", "edited");
                },
                before: None,
                ..PLAIN
            },
            Scene {
                name: "kept image that somebody holds",
                set: |work| {
                    fs::create_dir(work.path("held")).unwrap();
                    fs::hard_link(work.folder().join("image-1"), work.path("held/image")).unwrap();
                    work.edit("b.o", "edited");
                },
                ..PLAIN
            },
            Scene {
                name: "nothing changed",
                set: |work| {
                    work.edit("b.o", "edited");
                    work.link();
                },
                before: Some("one edited"),
                ..PLAIN
            },
            Scene {
                name: "nothing changed, stripped",
                set: |work| {
                    work.edit("b.o", "edited");
                    work.link();
                    fs::write(work.path("out"), "stripped").unwrap();
                },
                before: Some("stripped"),
                ..PLAIN
            },
        ]
    };

    fn io(&self, index: usize, fault: Fault) -> FaultyIo {
        let io = FaultyIo::at(index, fault);
        if self.exchange { io } else { io.without_exchange() }
    }

    fn link(&self, work: &Work, io: &dyn Io) -> Result<HostResult, HostError> {
        link_with(&mut Stub { library: self.library, ..Stub::default() }, work.request(), io)
    }
}

#[test]
fn fault_at_every_call_leaves_old_or_new_and_the_next_link_patches() {
    let faults = [Fault::Fail(28), Fault::Fail(5), Fault::Fail(13), Fault::Kill];
    for (scene, fault) in Scene::ALL.iter().flat_map(|scene| faults.map(|fault| (scene, fault))) {
        for index in 0.. {
            let at = format!("{}, {fault:?} {index}", scene.name);
            let work = Work::new();
            work.link();
            (scene.set)(&work);
            let names = || fs::read_dir(work.0.path()).unwrap().count();
            let outside = names();
            let io = scene.io(index, fault);
            let result = scene.link(&work, &io);
            let output = work.path("out").exists().then(|| work.output());
            match &result {
                Ok(_) => assert_eq!(output.as_deref(), Some("one edited"), "{at}"),
                Err(_) if fault == Fault::Kill => {
                    assert!(
                        [scene.before, Some("one edited")].contains(&output.as_deref()),
                        "{at}: {output:?}"
                    );
                }
                Err(error) => {
                    assert_eq!(output.as_deref(), scene.before, "{at} {error}");
                    assert!(error.to_string().contains(work.0.path().to_str().unwrap()), "{error}");
                }
            }
            let made = usize::from(output.is_some() && scene.before.is_none());
            assert_eq!(names(), outside + made, "{at}: nothing else outside of the state folder");
            let stored = open_stored(&SystemIo, &work.path("out"), StateTrust::Own).unwrap();
            assert!(!text(&stored.image).is_empty(), "{at}");
            drop(stored);

            // Once more, with another change on top of what is there.
            work.edit("a.o", "meanwhile");
            let again = scene.link(&work, &scene.io(index, fault));
            let output = work.path("out").exists().then(|| work.output());
            let new = output.as_deref() == Some("meanwhile edited");
            assert!(
                new || again.is_err() && [scene.before, Some("one edited")].contains(&output.as_deref()),
                "{at}"
            );

            // The next good frames patch as if nothing had happened, from whichever files are there.
            for later in ["later", "and later", "at last"] {
                work.edit("a.o", later);
                let report = scene.link(&work, &scene.io(usize::MAX, fault)).unwrap().report;
                assert_eq!(report.outcome, Outcome::Patched, "{at}");
                assert_eq!(work.output(), format!("{later} edited"), "{at}");
                work.assert_tidy();
            }
            if work.path("held").exists() {
                assert_eq!(text_of(&work.path("held/image")), "one two", "{at}");
            }
            if io.mutations() <= index {
                assert!(index > 7, "{at}: only {index} calls");
                break;
            }
        }
    }
}

#[test]
fn fault_at_every_call_of_a_full_link_leaves_nothing_that_misleads() {
    let faults = [Fault::Fail(28), Fault::Fail(5), Fault::Kill];
    let scenes = faults.into_iter().flat_map(|fault| [(fault, false), (fault, true)]);
    for ((fault, again), memory) in scenes.flat_map(|scene| [(scene, false), (scene, true)]) {
        for index in 0.. {
            let at = format!("{fault:?} {index}, over an earlier link: {again}, made in memory: {memory}");
            let work = Work::new();
            if again {
                // An image of another length.
                let mut request = work.request();
                request.inputs.inputs.truncate(1);
                link_with(&mut Stub::default(), request, &SystemIo).unwrap();
            }
            let io = FaultyIo::at(index, fault);
            let io = if memory { io } else { io.without_memory() };
            let result = work.link_by(&io);
            let output = work.path("out").exists().then(|| work.output());
            match (&result, output.as_deref()) {
                (Ok(_), output) => assert_eq!(output, Some("one two"), "{at}"),
                (Err(_), Some("one two")) if fault == Fault::Kill => {}
                (Err(_), output) => assert_eq!(output, again.then_some("one"), "{at}"),
            }
            work.edit("a.o", "later");
            work.link();
            assert_eq!(work.output(), "later two");
            work.assert_tidy();
            work.edit("a.o", "at last");
            assert_eq!(work.link().report.outcome, Outcome::Patched);
            assert_eq!(work.output(), "at last two");
            if io.mutations() <= index {
                assert!(index > 10, "{at}: only {index} calls");
                break;
            }
        }
    }
}

#[test]
fn fault_at_every_call_of_a_link_without_state_leaves_old_or_new() {
    for (fault, memory) in [Fault::Fail(28), Fault::Kill].into_iter().flat_map(|f| [(f, false), (f, true)]) {
        for index in 0.. {
            let at = format!("{fault:?} {index}, made in memory: {memory}");
            let work = Work::new();
            fs::write(work.path("out"), "old").unwrap();
            let io = FaultyIo::at(index, fault);
            let io = if memory { io } else { io.without_memory() };
            let request = HostRequest { incremental: false, ..work.request() };
            let result = link_with(&mut Stub::default(), request, &io);
            match &result {
                Ok(_) => assert_eq!(work.output(), "one two", "{at}"),
                Err(_) if fault == Fault::Kill => {
                    assert!(["old", "one two"].contains(&&*work.output()), "{at}")
                }
                Err(_) => assert_eq!(work.output(), "old", "{at}"),
            }
            if fault != Fault::Kill {
                let names = fs::read_dir(work.0.path()).unwrap().count();
                // The third call removes the file that could not be memory; one that fails leaves it.
                let left = usize::from(!memory && index == 2);
                assert_eq!(names, 3 + left, "{at}: a temporary file stayed behind");
            }
            if io.mutations() <= index {
                assert!(index > 2, "{at}: only {index} calls");
                break;
            }
        }
    }
}
