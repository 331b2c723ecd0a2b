//! Reports the measurements: medians, tables and pictures.

use crate::data::Data;
use crate::medium::{MEDIA, Medium, Repository};
use crate::model;
use crate::tool::{Cost, Tool};
use crate::work::{WORKS, Work};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use vsm::host::cores;

/// One run of one tool.
pub struct Row {
    pub medium: Medium,
    pub data: Data,
    pub work: Work,
    pub tool: Tool,
    pub cost: Cost,
    /// Bytes in the repository afterwards.
    pub repository: u64,
    /// Requests to the server, or operations of the volume's file system.
    pub requests: usize,
}

impl Row {
    /// The row as a line of text.
    pub fn line(&self) -> String {
        let Row { medium, data, work, tool, cost, repository, requests } = self;
        let Cost { wall_seconds, user_seconds, system_seconds, peak_kib } = cost;
        let (medium, data, work, tool) = (medium.name, data.directory(), work.name(), tool.name());
        format!(
            "{medium}\t{data}\t{work}\t{tool}\t{wall_seconds}\t{user_seconds}\t{system_seconds}\t{peak_kib}\t{repository}\t{requests}"
        )
    }

    pub fn parse(line: &str, all: &[Data], tools: &[Tool]) -> Option<Row> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        Some(Row {
            medium: next().and_then(|name| MEDIA.into_iter().find(|medium| medium.name == name))?,
            data: next().and_then(|name| all.iter().copied().find(|data| data.directory() == name))?,
            work: next().and_then(|name| WORKS.into_iter().find(|work| work.name() == name))?,
            tool: next().and_then(|name| tools.iter().copied().find(|tool| tool.name() == name))?,
            cost: Cost {
                wall_seconds: next()?.parse().ok()?,
                user_seconds: next()?.parse().ok()?,
                system_seconds: next()?.parse().ok()?,
                peak_kib: next()?.parse().ok()?,
            },
            repository: next()?.parse().ok()?,
            requests: next()?.parse().ok()?,
        })
    }

    pub fn print(&self) {
        let Cost { wall_seconds, user_seconds, system_seconds, peak_kib } = self.cost;
        println!(
            "{:28} {:35} {:28} {:23} {wall_seconds:7.2} s {user_seconds:7.2} user {system_seconds:6.2} system {:5} MiB peak {:6} MiB stored {} requests",
            self.medium.name,
            self.data.name(),
            self.work.name(),
            self.tool.name(),
            peak_kib >> 10,
            self.repository >> 20,
            self.requests
        );
    }
}

/// The medians of one tool's runs of one work.
struct Medians {
    rounds: usize,
    wall: f64,
    cpu: f64,
    peak_mib: f64,
    repository_mib: f64,
    requests: f64,
}

fn medians(rows: &[&Row], tool: Tool) -> Option<Medians> {
    let of = |number: &dyn Fn(&Row) -> f64| {
        let mut numbers: Vec<f64> = rows.iter().filter(|row| row.tool == tool).map(|row| number(row)).collect();
        numbers.sort_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        match numbers.len() {
            0 => None,
            count if count % 2 == 1 => Some(numbers[middle]),
            _ => Some((numbers[middle - 1] + numbers[middle]) / 2.0),
        }
    };
    Some(Medians {
        rounds: rows.iter().filter(|row| row.tool == tool).count(),
        wall: of(&|row| row.cost.wall_seconds)?,
        cpu: of(&|row| row.cost.user_seconds + row.cost.system_seconds)?,
        peak_mib: of(&|row| row.cost.peak_kib as f64 / 1024.0)?,
        repository_mib: of(&|row| row.repository as f64 / 1048576.0)?,
        requests: of(&|row| row.requests as f64)?,
    })
}

/// The rows grouped by medium, data and work, in the order of the first row of each group.
fn groups(rows: &[Row]) -> Vec<(&Row, Vec<&Row>)> {
    let mut groups: Vec<(&Row, Vec<&Row>)> = Vec::new();
    for row in rows {
        let key = |row: &Row| (row.medium.name, row.data, row.work);
        match groups.iter_mut().find(|(first, _)| key(first) == key(row)) {
            Some((_, group)) => group.push(row),
            None => groups.push((row, vec![row])),
        }
    }
    groups
}

/// A work that all tools have done.
struct Compared<'r> {
    first: &'r Row,
    ours: Medians,
    /// Without the extra verification, where that was measured.
    unverified: Option<Medians>,
    restic: Medians,
    rustic: Medians,
}

impl Compared<'_> {
    /// The beginning of a table's line.
    fn head(&self) -> String {
        let Row { medium, data, work, .. } = self.first;
        format!("| {} | {} | {}", medium.name, data.name(), work.name())
    }

    /// How many times as long as ours the faster peer takes.
    fn ratio(&self) -> f64 {
        self.restic.wall.min(self.rustic.wall) / self.ours.wall
    }
}

fn compared(rows: &[Row]) -> Vec<Compared<'_>> {
    let compare = |(first, group): (_, Vec<&Row>)| {
        let of = |tool| medians(&group, tool);
        let unverified = of(Tool::OursUnverified);
        Some(Compared {
            first,
            ours: of(Tool::Ours)?,
            unverified,
            restic: of(Tool::Restic)?,
            rustic: of(Tool::Rustic)?,
        })
    };
    groups(rows).into_iter().filter_map(compare).collect()
}

pub fn table(rows: &[Row]) -> String {
    table_of(&compared(rows))
}

fn table_of(all: &[Compared]) -> String {
    let mut text = String::from(
        "| on | data | work | times faster than the faster peer | rounds | seconds: ours | modelled | without the proof | restic | rustic | CPU seconds: ours | restic | rustic | peak MiB: ours | restic | rustic | repository MiB: ours | restic | rustic | requests: ours | restic | rustic |\n| --- | --- | --- |",
    );
    text.push_str(&" ---: |".repeat(19));
    text.push('\n');
    for work in all {
        let Compared { first, ours, unverified, restic, rustic } = work;
        let unverified = unverified.as_ref().map_or_else(String::new, |medians| format!("{:.1}", medians.wall));
        let _ = write!(text, "{} | **{:.1}**", work.head(), work.ratio());
        let Row { medium, data, work, .. } = first;
        let modelled = match (medium.link(), medium.repository, medium.delay) {
            (Some(link), _, _) => format!("{:.1}", model::link_seconds(*data, *work, cores(), link)),
            (None, Repository::Tmpfs, None) => format!("{:.1}", model::seconds(*data, *work, cores())),
            _ => String::new(),
        };
        let _ = write!(
            text,
            " | {} | {:.1} | {modelled} | {unverified} | {:.1} | {:.1}",
            ours.rounds, ours.wall, restic.wall, rustic.wall
        );
        let _ = write!(text, " | {:.1} | {:.1} | {:.1}", ours.cpu, restic.cpu, rustic.cpu);
        let sizes: [fn(&Medians) -> f64; 2] = [|m| m.peak_mib, |m| m.repository_mib];
        for of in sizes {
            let _ = write!(text, " | {:.0} | {:.0} | {:.0}", of(ours), of(restic), of(rustic));
        }
        if ours.requests > 0.0 {
            let _ = writeln!(text, " | {:.0} | {:.0} | {:.0} |", ours.requests, restic.requests, rustic.requests);
        } else {
            text.push_str(" | | | |\n");
        }
    }
    text
}

/// Writes the measurements into the documents. Local media, links and network volumes have a place
/// each, which stays unchanged if nothing was measured for it.
pub fn publish(rows: &[Row], versions: &[String]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let versions = versions.iter().filter(|version| !version.is_empty()).fold(String::new(), |mut text, version| {
        if !text.contains(version) {
            let _ = write!(text, "{}{version}", if text.is_empty() { "" } else { ",\n" });
        }
        text
    });
    for group in [Group::Local, Group::Links, Group::NetworkVolumes] {
        let all: Vec<Compared> = compared(rows).into_iter().filter(|work| Group::of(work.first) == group).collect();
        let rounds: BTreeSet<usize> = all.iter().map(|work| work.ours.rounds).collect();
        let rounds = match (rounds.first(), rounds.last()) {
            (Some(fewest), Some(most)) if fewest < most => format!("Medians of {fewest} to {most} rounds"),
            (Some(1), _) => "One round".to_owned(),
            (_, Some(most)) => format!("Medians of {most} rounds"),
            (_, None) => continue,
        };
        let machine = format!("{rounds}, {};\n{versions}.", machine());
        let (place, picture_file) = (group.place(), group.picture());
        let picture_of =
            |path: &str| format!("![How many times faster than the faster of restic and rustic]({path})\n\n");
        let links = if group == Group::Links { link_table(&all) + "\n" } else { String::new() };
        let picture_above = picture_of(&format!("../{picture_file}"));
        let measured = format!("{picture_above}{machine}\n\n{links}{}", table_of(&all));
        replace(&root.join("docs/internals/performance.md"), place, &measured);
        if group == Group::Local {
            let table = headline_table(&all);
            let measured = format!("{}{machine}\n\n{table}", picture_of(&format!("docs/{picture_file}")));
            replace(&root.join("README.md"), place, &measured);
        }
        fs::write(root.join("docs").join(picture_file), picture(&all)).expect("it can be written");
    }
}

/// Media that are published in one table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Local,
    Links,
    NetworkVolumes,
}

impl Group {
    fn of(row: &Row) -> Group {
        match (row.medium.link(), row.medium.delay) {
            (Some(_), _) => Group::Links,
            (None, Some(_)) => Group::NetworkVolumes,
            (None, None) => Group::Local,
        }
    }

    /// The name of the place of its table in the documents.
    fn place(self) -> &'static str {
        match self {
            Group::Local => "measured",
            Group::Links => "measured behind links",
            Group::NetworkVolumes => "measured on network volumes",
        }
    }

    fn picture(self) -> &'static str {
        match self {
            Group::Local => "performance.svg",
            Group::Links => "performance-links.svg",
            Group::NetworkVolumes => "performance-network-volumes.svg",
        }
    }
}

/// Replaces the text at a place in a document.
fn replace(document: &Path, place: &str, measured: &str) {
    let text = fs::read_to_string(document).expect("the document");
    let (begin, end) = (format!("<!-- {place}: begin -->\n"), format!("<!-- {place}: end -->"));
    let (before, rest) = text.split_once(&begin).expect("the place for the table begins");
    let (_, after) = rest.split_once(&end).expect("and ends");
    fs::write(document, format!("{before}{begin}{measured}{end}{after}")).expect("it can be written");
}

/// The table with seconds and peak memory, for the README.
fn headline_table(all: &[Compared]) -> String {
    let mut text = String::from(
        "| on | data | work | seconds | restic | rustic | peak MiB | restic | rustic |\n| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let is_headline = |work: &&Compared| {
        let Row { medium, work, .. } = work.first;
        medium.repository == Repository::S3 && [Work::Backup, Work::Unchanged, Work::Restore].contains(work)
    };
    for work in all.iter().filter(is_headline) {
        let Compared { ours, restic, rustic, .. } = work;
        let _ = writeln!(
            text,
            "{} | **{:.1}** | {:.1} | {:.1} | **{:.0}** | {:.0} | {:.0} |",
            work.head(),
            ours.wall,
            restic.wall,
            rustic.wall,
            ours.peak_mib,
            restic.peak_mib,
            rustic.peak_mib
        );
    }
    text
}

/// Seconds of ours, restic and rustic behind links, and the model's: a line for each work, with a
/// column for each link.
fn link_table(all: &[Compared]) -> String {
    let media: Vec<Medium> = MEDIA.into_iter().filter(|medium| medium.link().is_some()).collect();
    let mut text = String::from("| data | work |");
    for medium in &media {
        let _ = write!(text, " {} |", medium.name);
    }
    let _ = write!(text, "\n| --- | --- |{}\n", " ---: |".repeat(media.len()));
    let mut lines: Vec<(Data, Work)> = Vec::new();
    for Row { data, work, .. } in all.iter().map(|work| work.first) {
        if !lines.contains(&(*data, *work)) {
            lines.push((*data, *work));
        }
    }
    for (data, done) in lines {
        let _ = write!(text, "| {} | {} |", data.name(), done.name());
        for medium in &media {
            let of = |work: &&Compared| (work.first.medium, work.first.data, work.first.work) == (*medium, data, done);
            let _ = match (all.iter().find(of), medium.link()) {
                (Some(Compared { ours, restic, rustic, .. }), Some(link)) => {
                    let limit = model::link_seconds(data, done, cores(), link);
                    write!(text, " **{:.1}** {:.1} {:.1} ({limit:.1}) |", ours.wall, restic.wall, rustic.wall)
                }
                _ => write!(text, " |"),
            };
        }
        text.push('\n');
    }
    text
}

/// The date, the commit and the machine of a measurement.
fn machine() -> String {
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let memory: f64 = line("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let output = |program: &str, words: &[&str]| {
        let output = std::process::Command::new(program).args(words).output();
        output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    format!(
        "{} at commit `{}`:\n{} cores of {} (family {}, model {}), {:.0} GiB, Linux {}",
        output("date", &["-u", "+%F"]),
        output("git", &["rev-parse", "--short=12", "HEAD"]),
        cores(),
        line("/proc/cpuinfo", "model name"),
        line("/proc/cpuinfo", "cpu family"),
        line("/proc/cpuinfo", "model\t"),
        memory / 1048576.0,
        kernel.split('-').next().unwrap_or_default().trim()
    )
}

/// A bar for each work: how many times faster than the faster peer.
fn picture(all: &[Compared]) -> String {
    const ROW: usize = 22;
    const LEFT: usize = 520;
    const WIDTH: usize = 1000;
    let bar = |work: &Compared| {
        let Row { medium, data, work: done, .. } = work.first;
        (format!("{}: {}, {}", medium.name, data.name(), done.name()), work.ratio())
    };
    // Of the links, those where each tool opens its own number of connections.
    let is_shown =
        |work: &&Compared| !matches!(work.first.medium.repository, Repository::Link { connections: Some(_), .. });
    let bars: Vec<(String, f64)> = all.iter().filter(is_shown).map(bar).collect();
    let height = ROW * (bars.len() + 2);
    // A sparse file's bar would dwarf the others: the scale ends at 12, and the number says the
    // rest.
    let scale = |ratio: f64| (ratio.min(12.0) / 12.0 * (WIDTH - LEFT - 60) as f64) as usize;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"16\" font-weight=\"bold\">Times faster than the faster of restic and rustic (the line is 1)</text>\n"
    );
    for (number, (name, ratio)) in bars.iter().enumerate() {
        let y = ROW * (number + 1) + 6;
        let colour = if *ratio >= 1.0 { "#2f7d4f" } else { "#b03a2e" };
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{}\" height=\"16\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{}\">{ratio:.1}</text>\n",
            LEFT - 8,
            y + 13,
            scale(*ratio),
            LEFT + scale(*ratio) + 6,
            y + 13
        );
    }
    let one = LEFT + scale(1.0);
    let _ = write!(svg, "<line x1=\"{one}\" y1=\"{ROW}\" x2=\"{one}\" y2=\"{height}\" stroke=\"#888\"/>\n</svg>\n");
    svg
}
