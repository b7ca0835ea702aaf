//! Same inputs, same bytes; and with `--incremental` off an image as small as the best peer's.

use relink::LinkOptions;
use relink_tests::cc::{Cc, Opt};
use relink_tests::fixture::{App, Core};
use relink_tests::program::{self, Program, assert_same_bytes};
use relink_tests::real::{Link, Real, lld_prefix};
use relink_tests::{ld, read, scratch};

#[test]
fn library_links_are_the_same_at_any_number_of_threads() {
    for opt in Opt::ACCEPTANCE {
        let inputs = Core::new(opt).inputs(App::A);
        for options in [program::canonical(), program::incremental()] {
            let link = |threads, schedule_kind| {
                Program::linked(LinkOptions { threads, schedule_kind, ..options.clone() }, &inputs).image()
            };
            let image = link(1, relink::ScheduleKind::SingleThreaded);
            for threads in [0, 1, 2, 5] {
                for schedule in [relink::ScheduleKind::SingleThreaded, relink::ScheduleKind::MultiThreaded] {
                    assert_same_bytes(
                        &link(threads, schedule),
                        &image,
                        &format!("{threads} threads, {schedule:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn real_programs_are_the_same_at_any_number_of_threads() {
    for real in [Real::cxx(), Real::lua()] {
        let objects = real.objects(&real.cc(Opt::O0));
        let dir = scratch();
        for mode in ["", "--incremental,"] {
            for link in Link::BOTH {
                let link = |name: &str, flags: &str| {
                    let out = dir.path().join(name);
                    let _ = std::fs::remove_dir_all(dir.path().join(".relink"));
                    real.link(&objects, link, Some(ld::gcc_prefix()), &[&format!("-Wl,{mode}{flags}")], &out);
                    let image = read(&out);
                    std::fs::remove_file(out).unwrap();
                    image
                };
                let image = link("out", "--threads=1");
                assert_same_bytes(&link("out", "--threads=1"), &image, "the same link again");
                assert_same_bytes(&link("out", "--threads=2"), &image, "two threads");
                assert_same_bytes(&link("other-name", "--threads=2"), &image, "another name of the output");
            }
        }
    }
}

#[test]
fn input_from_another_path_gives_the_same_image() {
    // Names of inputs are in messages, not in the image.
    let inputs = Core::new(Opt::O0).inputs(App::A);
    let renamed = inputs.iter().map(|(name, bytes)| (format!("/elsewhere/{name}"), bytes.clone())).collect();
    for options in [program::canonical(), program::incremental()] {
        let images = [&inputs, &renamed].map(|inputs| Program::linked(options.clone(), inputs).image());
        assert_same_bytes(&images[0], &images[1], "names of inputs");
    }
}

#[test]
fn canonical_size_is_within_two_percent_of_lld() {
    for real in [Real::hello(), Real::cxx(), Real::lua(), Real::sqlite()] {
        for opt in [Opt::O0, Opt::O2] {
            let objects = real.objects(&real.cc(opt));
            for link in Link::BOTH {
                let dir = scratch();
                let size = |prefix, name: &str| {
                    let out = dir.path().join(name);
                    let flags = ["-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,--hash-style=gnu"];
                    real.link(&objects, link, Some(prefix), &flags, &out);
                    std::fs::metadata(out).unwrap().len()
                };
                let (ours, theirs) = (size(ld::gcc_prefix(), "ours"), size(lld_prefix(), "theirs"));
                let ratio = ours as f64 / theirs as f64;
                assert!(
                    ratio <= 1.02,
                    "{} {opt:?} {link:?}: {ours} bytes, lld {theirs} ({ratio:.4})",
                    real.name
                );
            }
        }
    }
}

#[test]
fn compiler_is_deterministic() {
    // If this fails, the other tests of this file say nothing.
    let cc = Cc::freestanding(Opt::O1);
    let text =
        "static int twice(int x) { return x * 2; }\nint f(int x) { return twice(x) + twice(x + 1); }\n";
    assert_eq!(cc.text_anew("a.c", text), cc.text_anew("a.c", text));
}
