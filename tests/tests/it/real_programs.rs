//! Real programs, linked by gcc with `ld.relink` as its linker: they run right, and every reader is as content with them as
//! with what the system's linker makes of the same objects.

use relink_tests::cc::Opt;
use relink_tests::real::{Link, Real};

fn judge(real: &Real) {
    for opt in [Opt::O0, Opt::O2] {
        for link in Link::BOTH {
            real.judge(opt, link);
        }
    }
}

#[test]
fn c_hello() {
    judge(&Real::hello());
}

#[test]
fn cxx_exceptions_streams_and_thread_locals() {
    judge(&Real::cxx());
}

#[test]
fn posix_threads() {
    judge(&Real::threads());
}

#[test]
fn lua_runs_a_script() {
    judge(&Real::lua());
}

#[test]
fn sqlite_runs_sql() {
    judge(&Real::sqlite());
}
