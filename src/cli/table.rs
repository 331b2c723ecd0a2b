//! Text tables, such as the lists of snapshots and keys. A cell may have several lines.

/// A table with a header; [`Table::lines`] formats it.
pub struct Table {
    /// Trailing spaces widen a column.
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

const GAP: &str = "  ";

impl Table {
    pub fn new(header: Vec<&'static str>) -> Table {
        Table { header, rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// The lines of the table: header, rule, rows, rule.
    pub fn lines(&self) -> Vec<String> {
        let widths: Vec<usize> = (0..self.header.len()).map(|column| self.width(column)).collect();
        let rule = "-".repeat(widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1));
        let mut lines = vec![join(&widths, self.header.iter().copied()), rule.clone()];
        for row in &self.rows {
            let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0);
            for line in 0..height.max(1) {
                lines.push(join(&widths, row.iter().map(|cell| cell.lines().nth(line).unwrap_or(""))));
            }
        }
        lines.push(rule);
        lines
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().flat_map(|row| row[column].lines());
        cells.chain([self.header[column]]).map(|text| text.chars().count()).max().unwrap_or(0)
    }
}

fn join<'c>(widths: &[usize], cells: impl Iterator<Item = &'c str>) -> String {
    let padded: Vec<String> = widths.iter().zip(cells).map(|(&width, cell)| format!("{cell:<width$}")).collect();
    padded.join(GAP).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_cell_are_printed_below_each_other() {
        let mut table = Table::new(vec!["ID", "Tags  ", "Paths"]);
        table.row(vec!["1".into(), String::new(), "/data\n/srv/www".into()]);
        assert_eq!(
            table.lines(),
            [
                "ID  Tags    Paths",
                "--------------------",
                "1           /data",
                "            /srv/www",
                "--------------------"
            ]
        );
    }
}
