//! Medians, as a table of Markdown.

use super::measure::Cost;

/// What one kind of process cost in all rounds.
#[derive(Debug, Default)]
pub struct Row {
    /// What was done.
    pub label: String,
    /// What the linker said of it.
    pub outcome: String,
    /// One for each run.
    pub costs: Vec<Cost>,
    /// System calls of one run.
    pub calls: Option<u64>,
    /// Index of the row of the least that this needs.
    pub floor: Option<usize>,
}

fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

impl Row {
    /// A row that nothing was measured for yet.
    pub fn new(label: impl Into<String>, floor: Option<usize>) -> Row {
        Row { label: label.into(), floor, ..Row::default() }
    }

    /// Median milliseconds; 0 if nothing was measured.
    pub fn wall_ms(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.wall_ms).collect()).unwrap_or(0.0)
    }

    fn count(&self, of: impl Fn(&Cost) -> u64) -> u64 {
        median(self.costs.iter().map(of).collect()).unwrap_or(0)
    }
}

/// Medians of rows; `fastest` is the wall time of the fastest full link of another linker.
pub fn markdown(rows: &[Row], fastest: Option<f64>) -> String {
    let mut text = String::from(
        "| process | outcome | runs | wall ms | (least) | fastest full link / it | it / floor | KB read | KB written | \
         minor faults | major | system calls |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows.iter().filter(|row| !row.costs.is_empty()) {
        let wall = row.wall_ms();
        let least = row.costs.iter().map(|cost| cost.wall_ms).fold(f64::INFINITY, f64::min);
        let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.1}"));
        let floor = row.floor.and_then(|floor| rows.get(floor)).filter(|floor| !floor.costs.is_empty());
        let line = format!(
            "| {} | {} | {} | {wall:.2} | {least:.2} | {} | {} | {:.1} | {:.1} | {} | {} | {} |\n",
            row.label,
            row.outcome,
            row.costs.len(),
            ratio(fastest.map(|fastest| fastest / wall)),
            ratio(floor.map(|floor| wall / floor.wall_ms())),
            row.count(|cost| cost.read_bytes) as f64 / 1e3,
            row.count(|cost| cost.written_bytes) as f64 / 1e3,
            row.count(|cost| cost.minor_faults),
            row.count(|cost| cost.major_faults),
            row.calls.map_or(String::new(), |calls| calls.to_string()),
        );
        text.push_str(&line);
    }
    text
}
