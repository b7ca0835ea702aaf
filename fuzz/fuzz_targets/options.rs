//! A command line, with the files that it names: see `relink_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relink_tests::fuzz::judge("options")(data));
