//! Tables for people: columns aligned by what a terminal shows, not by bytes.

use super::safe::width;

/// What stands between two columns.
const GAP: &str = "  ";

/// Rows under a header. The cells must be harmless already (see [`super::safe`]).
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column headings and no row.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row at the end; cells that are missing are empty, those beyond the header are not shown.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The lines, the header first, without spaces at the ends and without a line break at the very end.
    pub(crate) fn lines(&self) -> Vec<String> {
        let header: Vec<String> = self.header.iter().map(|&cell| cell.to_owned()).collect();
        let widths: Vec<usize> = (0..header.len())
            .map(|column| {
                self.rows
                    .iter()
                    .chain([&header])
                    .filter_map(|row| row.get(column))
                    .map(|cell| width(cell))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        std::iter::once(&header).chain(&self.rows).map(|row| line(row, &widths)).collect()
    }
}

/// `key: value` lines whose values stand below one another. The values must be harmless already.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
    let lines: Vec<String> = pairs
        .iter()
        .map(|(key, value)| {
            let padding = " ".repeat(widest - width(key));
            format!("{key}:{padding} {value}").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut out = String::new();
    for (column, &wanted) in widths.iter().enumerate() {
        if column > 0 {
            out.push_str(GAP);
        }
        let cell = row.get(column).map_or("", String::as_str);
        out.push_str(cell);
        out.push_str(&" ".repeat(wanted.saturating_sub(width(cell))));
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_width() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.push(vec!["日本語".to_owned(), "up".to_owned()]);
        table.push(vec!["bo".to_owned()]);
        table.push(vec!["x".to_owned(), "left".to_owned(), "beyond".to_owned()]);
        assert_eq!(table.lines(), ["NAME    STATE", "日本語  up", "bo", "x       left"]);
    }

    #[test]
    fn pairs_are_aligned() {
        assert_eq!(pairs(&[("name", "bob".to_owned()), ("id", "x".to_owned())]), "name: bob\nid:   x");
    }
}
