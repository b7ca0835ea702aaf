//! The soak: one program, linked by a process for each of very many edits. After every frame the oracle, the program's
//! behaviour, and bounds of all that could grow.

mod bounds;
mod generated;
mod lua;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use relink::GateKind;
use serde_json::Value;

pub use bounds::Extent;

use crate::rng::Rng;
use crate::{ld, tools};

/// What is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A program of the simulator's model.
    Generated,
    /// Lua, whose functions gain and lose statements.
    Lua,
}

/// A program under edits.
trait Subject {
    /// Makes one edit; says what it did.
    fn edit(&mut self, rng: &mut Rng) -> String;
    /// Links in a process of its own; the report.
    fn link(&mut self) -> Value;
    /// Panics unless the output does what it should.
    fn judge(&self);
    /// The output.
    fn out(&self) -> PathBuf;
}

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Frames that were asked for.
    pub frames: usize,
    /// Frames that were patches and wrote something.
    pub patched: usize,
    /// Frames that found nothing to do.
    pub idle: usize,
    /// Atoms that moved.
    pub moved: u64,
    /// Full links by their reasons.
    pub reasons: BTreeMap<String, usize>,
    /// Full links.
    pub full: usize,
    /// The most of everything that was seen.
    pub most: Extent,
    /// The sum of the reports' times.
    pub linking: Duration,
    /// Of the whole run, compiler and oracle included.
    pub elapsed: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames: {} patched ({} moves), {} idle, {} full; at most {}; {:.1} s of links in {:.0} s",
            self.frames,
            self.patched,
            self.moved,
            self.idle,
            self.full,
            self.most,
            self.linking.as_secs_f64(),
            self.elapsed.as_secs_f64(),
        )
    }
}

/// The option for a gate.
fn gate_flag(gate: GateKind) -> &'static str {
    match gate {
        GateKind::Strict => "--gate=strict",
        GateKind::Wide => "--gate=wide",
        GateKind::Closed => "--gate=closed",
    }
}

/// Runs a soak; a failure is text with program, seed and frame.
pub fn soak(program: Program, gate: GateKind, seed: u64, frames: usize) -> Result<Summary, String> {
    let at = std::cell::RefCell::new((0, String::new()));
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let start = Instant::now();
        let mut subject: Box<dyn Subject> = match program {
            Program::Generated => Box::new(generated::Generated::new(seed, gate)),
            Program::Lua => Box::new(lua::Lua::new(gate)),
        };
        let mut rng = Rng::new(seed ^ 0x50a4);
        let mut summary = Summary { frames, ..Summary::default() };
        assert_eq!(subject.link()["outcome"], "full");
        let mut before = bounds::measure(&*subject, None);
        for frame in 1..=frames {
            let told = subject.edit(&mut rng);
            *at.borrow_mut() = (frame, told);
            let report = subject.link();
            summary.count(&report);
            tools::say(ld::relink().arg("verify").arg(subject.out())).ok();
            subject.judge();
            let patched = report["outcome"] == "patched";
            before = bounds::measure(&*subject, patched.then_some(&before));
            summary.most.raise(&before);
        }
        summary.elapsed = start.elapsed();
        summary
    }));
    judged.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let (frame, told) = at.take();
        format!(
            "soak of {program:?} behind the {gate:?} gate, seed {seed}: frame {frame} ({told}) fails: {}",
            text.unwrap_or_else(|| "a panic without words".to_owned())
        )
    })
}

impl Summary {
    fn count(&mut self, report: &Value) {
        let counter = |name: &str| report["counters"][name].as_u64().unwrap_or(0);
        match report["outcome"].as_str() {
            Some("patched") if counter("bytes_written") > 0 => self.patched += 1,
            Some("patched") => self.idle += 1,
            _ => self.full += 1,
        }
        self.moved += counter("atoms_moved");
        self.linking += Duration::from_nanos(report["total_ns"].as_u64().unwrap_or(0));
        for reason in report["reasons"].as_array().into_iter().flatten() {
            let kind = reason["kind"].as_str().unwrap_or("?");
            *self.reasons.entry(kind.to_owned()).or_insert(0) += 1;
        }
    }
}
