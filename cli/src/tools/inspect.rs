//! `relink inspect OUT`: what is kept of an output, and the work that its last links took.

use std::path::Path;

use relink::host::{self, SystemIo};
use serde_json::Value;

use super::{ToolResult, duration, log, size};
use crate::{console, ld};

pub(super) fn run(output: &Path) -> ToolResult {
    let (io, trust) = (SystemIo, ld::trusted_state());
    let stored = host::open_stored(&io, output, trust).map_err(|error| error.to_string())?;
    let entries = host::read_log(&io, output, trust).map_err(|error| error.to_string())?;
    console::line(console::bold(output.display()));
    let (image, state) = (stored.image.len() as u64, stored.state.len() as u64);
    console::line(format_args!("  image   {:>10}", size(image)));
    console::line(format_args!("  state   {:>10}", size(state)));
    show_columns(&stored.state)?;
    match &stored.output_differs {
        None => console::line("  output  as it was linked"),
        Some(why) => console::line(format_args!("  output  {why}")),
    }
    let count = |outcome: &str| entries.iter().filter(|entry| entry["outcome"] == outcome).count();
    console::line(format_args!(
        "  links   {} patched, {} full, {} failed",
        count("patched"),
        count("full") + count("fell_back_full"),
        count("failed")
    ));
    if let Some(last) = entries.iter().rev().find(|entry| entry["counters"].is_object()) {
        show_work(last);
    }
    Ok(0)
}

/// What the state is made of: empty columns are left out.
fn show_columns(state: &[u8]) -> Result<(), String> {
    let layout = relink::state_layout(state)?;
    let base: u64 = layout.prefix_bytes + layout.columns.iter().map(|column| column.bytes).sum::<u64>();
    console::line(format_args!("  log     {:>10}  {} records", size(layout.log_bytes), layout.log_records));
    console::line("  column               rows  bytes a row       bytes  with checksums a row   share");
    for column in layout.columns.iter().filter(|column| column.rows > 0) {
        let (rows, bytes) = (f64::from(column.rows), column.bytes as f64);
        console::line(format_args!(
            "  {:<12} {:>12}  {:>11}  {:>10}  {:>20.1}  {:>5.1} %",
            column.name,
            column.rows,
            column.row_bytes,
            column.bytes,
            bytes / rows,
            100.0 * bytes / base as f64
        ));
    }
    Ok(())
}

/// Counters and times of one link; what is zero is left out.
fn show_work(entry: &Value) {
    let outcome = entry["outcome"].as_str().unwrap_or("?");
    let total = duration(entry["total_ns"].as_u64().unwrap_or(0));
    console::line(format_args!("{} {outcome}, {total}", console::bold("last link:")));
    for reason in entry["reasons"].as_array().into_iter().flatten() {
        console::line(format_args!("  {}", log::reason(reason)));
    }
    for (name, value) in entry["counters"].as_object().into_iter().flatten() {
        let value = value.as_u64().unwrap_or(0);
        if value > 0 {
            console::line(format_args!("  {value:>10}  {}", name.replace('_', " ")));
        }
    }
    for time in entry["timings_ns"].as_array().into_iter().flatten() {
        let (set, ns) = (time["set"].as_str().unwrap_or("?"), time["ns"].as_u64().unwrap_or(0));
        console::line(format_args!("  {:>10}  {set}", duration(ns)));
    }
}
