//! `relink log OUT`: how an output came to be, link by link.

use std::path::Path;

use relink::host::{self, SystemIo};
use serde_json::Value;

use super::{ToolResult, duration};
use crate::{console, ld};

/// Reasons shown in a line each; the rest are counted.
const REASONS_MAX: usize = 5;

pub(super) fn run(output: &Path, json: bool) -> ToolResult {
    let entries = host::read_log(&SystemIo, output, ld::trusted_state());
    let entries = entries.map_err(|error| error.to_string())?;
    for entry in &entries {
        match json {
            true => console::line(entry),
            false => console::print(describe(entry)),
        }
    }
    Ok(0)
}

/// One link: a line, and one for each reason, note and changed input.
fn describe(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or("?").to_owned();
    let outcome = match text("outcome").as_str() {
        "full" => "full".to_owned(),
        "patched" => "patched".to_owned(),
        "fell_back_full" => "full, not patched because".to_owned(),
        other => other.to_owned(),
    };
    let total = duration(entry["total_ns"].as_u64().unwrap_or(0));
    let time = timestamp(entry["time_ms"].as_i64().unwrap_or(0));
    let mut lines = format!("{time}  {total:>9}  {}\n", console::bold(outcome));
    let details = list(&entry["reasons"], reason)
        .chain(list(&entry["notes"], |note| note.as_str().unwrap_or_default().to_owned()))
        .chain(entry["error"].as_str().map(str::to_owned));
    for detail in details {
        for line in detail.lines() {
            lines += &format!("{:34}{line}\n", "");
        }
    }
    let changed: Vec<&str> = strings(&entry["changed_atoms"]);
    if !changed.is_empty() {
        lines += &format!("{:34}{}\n", "", abbreviated(&changed));
    }
    lines
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn list(value: &Value, show: impl Fn(&Value) -> String) -> impl Iterator<Item = String> {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let more = all.len().saturating_sub(REASONS_MAX);
    let shown: Vec<String> = all.iter().take(REASONS_MAX).map(show).collect();
    shown.into_iter().chain((more > 0).then(|| format!("and {more} more")))
}

/// `new-global: symbol g_extra, input state.o`.
pub(super) fn reason(reason: &Value) -> String {
    let mut text = reason["kind"].as_str().unwrap_or("unknown").to_owned();
    let fields = reason.as_object().into_iter().flatten().filter(|(name, _)| *name != "kind");
    for (index, (name, value)) in fields.enumerate() {
        text += if index == 0 { ": " } else { ", " };
        let value = value.as_str().map_or_else(|| value.to_string(), crate::demangle::demangle);
        text += &format!("{name} {value}");
    }
    text
}

/// A few names, and how many more there are.
pub(super) fn abbreviated(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(4).map(|name| crate::demangle::demangle(name)).collect();
    let more = names.len() - shown.len();
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

/// UTC, since nothing here knows time zones: `2026-11-22 16:25:01`.
fn timestamp(ms: i64) -> String {
    let (days, ms_of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Civil date from days, counted in years that begin in March (H. Hinnant, "chrono-compatible date algorithms").
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let seconds = ms_of_day / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_civil() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_795_364_701_000, "2026-11-22 16:25:01Z"),
        ] {
            assert_eq!(timestamp(ms), text);
        }
    }

    #[test]
    fn entry_tells_outcome_and_reasons() {
        let entry = serde_json::json!({
            "time_ms": 0, "outcome": "fell_back_full", "total_ns": 1_500_000,
            "reasons": [{"kind": "new-global", "symbol": "_ZN2ns1xE", "input": "state.o"}],
            "notes": ["a note"], "changed_atoms": ["a", "b", "c", "d", "e"],
        });
        let text = anstream::adapter::strip_str(&describe(&entry)).to_string();
        let indent = " ".repeat(34);
        assert_eq!(
            text,
            format!(
                "1970-01-01 00:00:00Z     1.5 ms  full, not patched because\n\
                 {indent}new-global: input state.o, symbol ns::x\n{indent}a note\n{indent}a, b, c, d and 1 more\n"
            )
        );
    }
}
