//! The table of snapshots that `snapshots` and `forget` print.
//!
//! Programs parse its lines: id, date, time, host, …, paths.

use super::context::Context;
use super::output;
use super::render;
use super::table::Table;
use crate::maintain::group::GroupKey;
use crate::repo::StoredSnapshot;

/// Optional columns. Without [`Column::Paths`], the table is compact.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Reasons,
    Paths,
}

/// The name of a group, such as `host [a], paths [/x]`; empty for the group of all snapshots.
pub fn group_name(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    if !key.hostname.is_empty() {
        parts.push(format!("host [{}]", key.hostname));
    }
    for (label, list) in [("tags", &key.tags), ("paths", &key.paths)] {
        if let Some(list) = list {
            parts.push(format!("{label} [{}]", list.join(", ")));
        }
    }
    parts.join(", ")
}

/// The line above a group's table.
pub fn group_header(key: &GroupKey) -> String {
    match group_name(key) {
        name if name.is_empty() => "snapshots:".into(),
        name => format!("snapshots for ({name}):"),
    }
}

pub fn print(
    context: &Context,
    snapshots: &[StoredSnapshot],
    columns: &[Column],
    reasons: impl Fn(&StoredSnapshot) -> String,
) -> output::Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let wide = columns.contains(&Column::Paths);
    let with_reasons = columns.contains(&Column::Reasons);
    let sized = snapshots.iter().any(|stored| stored.snapshot.summary.is_some());
    let mut header =
        if wide { vec!["ID", "Time", "Host      ", "Tags      "] } else { vec!["ID", "Time", "Host", "Tags  "] };
    header.extend(with_reasons.then_some("Reasons"));
    header.extend(wide.then_some("Paths"));
    header.extend(sized.then_some("Size"));
    let mut table = Table::new(header);
    for stored in snapshots {
        let snapshot = &stored.snapshot;
        let mut row = vec![
            stored.id.short(),
            render::local_time(&snapshot.time),
            snapshot.hostname.clone(),
            snapshot.tags.join(if wide { "," } else { "\n" }),
        ];
        row.extend(with_reasons.then(|| reasons(stored)));
        row.extend(wide.then(|| snapshot.paths.join("\n")));
        let size = snapshot.summary.as_ref().map(|summary| render::bytes(summary.total_bytes_processed));
        row.extend(sized.then(|| size.unwrap_or_default()));
        table.row(row);
    }
    table.lines().iter().try_for_each(|line| context.out.line(line))?;
    context.out.line("times are local")?;
    context.out.line(format_args!("{} snapshots", snapshots.len()))
}
