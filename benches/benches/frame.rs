//! A warm frame on programs of 1k, 10k and 100k functions: the time must not depend on the size.
//!
//! The frames: an edit that fits its slot (static, static-pie), a function that outgrows its slot, a file that is
//! rewritten with the same bytes, and the edit in a fresh process (open the state, then the frame). Behind criterion's
//! figures stands a table of medians, their ratio to the smallest program, which work counters are others than those of
//! the smallest program, and the median time of each set.

#![expect(clippy::print_stdout, reason = "a bench speaks to its user")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use relink::{Input, InputSource, OutputKind};
use relink_benches::live::{self, Live};
use relink_benches::workload::{Edit, Program};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const STATIC: OutputKind = OutputKind::StaticExecutable;
/// The curve is flat if the largest program costs at most this many times the smallest.
const FLAT: f64 = 1.3;

/// What each kind of frame took and did, by size.
#[derive(Default)]
struct Curve {
    rows: Vec<Row>,
}

#[derive(Default)]
struct Row {
    kind: &'static str,
    size: usize,
    /// Nanoseconds of each frame.
    samples: Vec<u64>,
    /// Work of each frame, counter by counter.
    counters: BTreeMap<String, Vec<u64>>,
    /// Nanoseconds of each set, frame by frame.
    sets: BTreeMap<&'static str, Vec<u64>>,
}

impl Curve {
    fn row(&mut self, kind: &'static str, size: usize) -> &mut Row {
        self.rows.push(Row { kind, size, samples: Vec::new(), ..Row::default() });
        self.rows.last_mut().expect("one was just added")
    }

    fn print(&self) {
        println!(
            "\n{:<14} {:>8} {:>8} {:>10} {:>10} {:>7}  work",
            "frame", "atoms", "frames", "median us", "p90 us", "ratio"
        );
        let run = || self.rows.iter().filter(|row| !row.samples.is_empty());
        let first_of = |row: &Row| run().find(|first| first.kind == row.kind).expect("it is one itself");
        let ratio = |row: &Row| row.quantile(50) as f64 / first_of(row).quantile(50) as f64;
        for row in run() {
            let other = row.other_work(first_of(row));
            println!(
                "{:<14} {:>8} {:>8} {:>10.1} {:>10.1} {:>7.2}  {}",
                row.kind,
                row.size,
                row.samples.len(),
                row.quantile(50) as f64 / 1000.0,
                row.quantile(90) as f64 / 1000.0,
                ratio(row),
                if other.is_empty() { "same" } else { &other },
            );
            println!("{:>66}  us: {}", "", row.set_times());
        }
        // Naming the inputs to a session is no frame: it costs 16 ns for each of them.
        let worst = run().filter(|row| row.kind != "open").map(ratio).fold(0.0, f64::max);
        println!(
            "the curve of frames is {} (worst ratio {worst:.2}, limit {FLAT})",
            if worst <= FLAT { "flat" } else { "NOT flat" }
        );
    }
}

impl Row {
    fn time(&mut self, frame: impl FnOnce()) -> Duration {
        let start = Instant::now();
        frame();
        let time = start.elapsed();
        self.samples.push(time.as_nanos() as u64);
        time
    }

    /// Keeps what the session says of its last frame.
    fn note(&mut self, live: &Live) {
        let Some(report) = live.session.report() else { return };
        let counters = serde_json::to_value(report.counters).expect("counters are numbers");
        for (name, count) in counters.as_object().into_iter().flatten() {
            self.counters.entry(name.clone()).or_default().extend(count.as_u64());
        }
        for time in &report.timings_ns {
            self.sets.entry(time.set).or_default().push(time.ns);
        }
        let known: u64 = report.timings_ns.iter().map(|time| time.ns).sum();
        self.sets.entry("outside sets").or_default().push(report.total_ns - known);
    }

    /// Counters whose median differs from another row's by more than a tenth.
    fn other_work(&self, first: &Row) -> String {
        let median = |row: &Row, name: &str| row.counters.get(name).map_or(0, |counts| quantile(counts, 50));
        let names = self.counters.keys().map(|name| (name, median(first, name), median(self, name)));
        let other = names.filter(|(_, then, now)| then.abs_diff(*now) * 10 > *then);
        other.map(|(name, then, now)| format!("{name} {then} -> {now}")).collect::<Vec<_>>().join(", ")
    }

    fn quantile(&self, percent: usize) -> u64 {
        quantile(&self.samples, percent)
    }

    /// Median microseconds of the sets that take any time.
    fn set_times(&self) -> String {
        let medians = self.sets.iter().map(|(set, times)| (*set, quantile(times, 50) as f64 / 1000.0));
        medians
            .filter(|(_, us)| *us >= 1.0)
            .map(|(set, us)| format!("{set} {us:.0}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn quantile(samples: &[u64], percent: usize) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) * percent / 100]
}

/// A program, and the variants of the unit in its middle.
struct Case {
    program: Program,
    inputs: Vec<Input>,
    unit: usize,
    /// A function with another constant, and with that constant and 16 more bytes.
    edits: [Arc<dyn InputSource>; 2],
}

impl Case {
    fn new(size: usize) -> Case {
        let program = Program::new(size);
        let unit = program.units() / 2;
        let variant = |edit: Edit| {
            live::source(program.unit(unit, |function| if function == 42 { edit } else { Edit::default() }))
        };
        let edits = [Edit { constant: 1, padding: 0 }, Edit { constant: 2, padding: 16 }].map(variant);
        Case { inputs: live::inputs(&program), program, unit, edits }
    }

    fn edit(&self, version: usize) -> Input {
        live::input(self.unit, version as i64 + 1, &self.edits[version % 2])
    }
}

fn warm_edit(criterion: &mut Criterion, curve: &mut Curve, case: &Case, kind: OutputKind) {
    let name = if kind == OutputKind::StaticPie { "edit-pie" } else { "edit" };
    let row = curve.row(name, case.program.functions());
    let id = format!("{}/{}", row.kind, row.size);
    let mut live = Live::cold(&case.inputs, kind);
    let mut version = 0;
    criterion.bench_function(&id, |bencher| {
        bencher.iter_custom(|frames| {
            let mut frame = |row: &mut Row| {
                version += 1;
                let input = case.edit(version);
                let time = row.time(|| live.patch(case.unit, input));
                row.note(&live);
                time
            };
            (0..frames).map(|_| frame(row)).sum()
        });
    });
}

fn warm_touch(criterion: &mut Criterion, curve: &mut Curve, case: &Case) {
    let row = curve.row("no-op", case.program.functions());
    let id = format!("{}/{}", row.kind, row.size);
    let mut live = Live::cold(&case.inputs, STATIC);
    let mut version = 0;
    let same = case.inputs[case.unit].source.clone();
    criterion.bench_function(&id, |bencher| {
        bencher.iter_custom(|frames| {
            let mut frame = |row: &mut Row| {
                version += 1;
                let input = live::input(case.unit, version, &same);
                let time = row.time(|| live.patch(case.unit, input));
                row.note(&live);
                time
            };
            (0..frames).map(|_| frame(row)).sum()
        });
    });
}

/// Each frame grows another function beyond its slot. Before a reserve of the image is used up (the symbol table's is the
/// first), the program is linked anew, outside the clock.
fn warm_grow(criterion: &mut Criterion, curve: &mut Curve, case: &Case) {
    const GROWN: Edit = Edit { constant: 0, padding: 64 };
    let row = curve.row("grow", case.program.functions());
    let id = format!("{}/{}", row.kind, row.size);
    let budget = 24 + case.program.functions() / 500;
    let mut live = Live::cold(&case.inputs, STATIC);
    let mut grown = 0;
    criterion.bench_function(&id, |bencher| {
        bencher.iter_custom(|frames| {
            let mut frame = |row: &mut Row| {
                if grown == budget {
                    live = Live::cold(&case.inputs, STATIC);
                    grown = 0;
                }
                // All units take part, with functions that only other units call.
                let (unit, last) = (grown % case.program.units(), grown / case.program.units());
                grown += 1;
                let edit = |function: usize| {
                    if function.is_multiple_of(10) && function / 10 <= last { GROWN } else { Edit::default() }
                };
                let input = live::input(unit, last as i64 + 1, &live::source(case.program.unit(unit, edit)));
                let time = row.time(|| live.patch(unit, input));
                row.note(&live);
                time
            };
            (0..frames).map(|_| frame(row)).sum()
        });
    });
}

/// The edit in a fresh process that has the bytes of state and image: new session, inputs, open, frame.
fn fresh_edit(criterion: &mut Criterion, curve: &mut Curve, case: &Case) {
    let (state, image) = Live::cold(&case.inputs, STATIC).parts();
    let mut inputs = case.inputs.clone();
    inputs[case.unit] = case.edit(1);
    let open = |inputs: Vec<Input>, state: &Bytes, image: &Bytes| {
        Live::opened(inputs, STATIC, state.clone(), image.clone())
    };
    for kind in ["open", "open+edit"] {
        let row = curve.row(kind, case.program.functions());
        let id = format!("{}/{}", row.kind, row.size);
        criterion.bench_function(&id, |bencher| {
            bencher.iter_custom(|frames| {
                let mut total = Duration::ZERO;
                for _ in 0..frames {
                    let mut kept = None;
                    let inputs = inputs.clone(); // The caller's, who has names and identities anyway.
                    total += row.time(|| {
                        let mut live = open(inputs, &state, &image);
                        if kind == "open+edit" {
                            live.patch_pending();
                        }
                        kept = Some(live);
                    });
                    kept.iter().for_each(|live| row.note(live));
                }
                total
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    let mut curve = Curve::default();
    for size in SIZES {
        let case = Case::new(size);
        warm_edit(&mut criterion, &mut curve, &case, STATIC);
        warm_edit(&mut criterion, &mut curve, &case, OutputKind::StaticPie);
        warm_grow(&mut criterion, &mut curve, &case);
        warm_touch(&mut criterion, &mut curve, &case);
        fresh_edit(&mut criterion, &mut curve, &case);
    }
    curve.rows.sort_by_key(|row| row.kind);
    curve.print();
    criterion.final_summary();
}
