// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Aligned columns for reports.

use std::fmt::Write as _;

use crate::style::Style;

/// Writes rows of equal length, the heads first: names to the left, numbers to the right, a nameless
/// column (the little histogram) to the left.
pub fn table<R: AsRef<[String]>>(out: &mut String, rows: &[R], style: Style) {
    let Some(heads) = rows.first().map(AsRef::as_ref) else { return };
    let width = |column: usize| rows.iter().map(|row| row.as_ref()[column].chars().count()).max();
    let widths: Vec<_> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    for (nth, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.as_ref().iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            let gap = if column == 0 { "" } else { "  " };
            let left = column == 0 || heads[column].is_empty();
            let _ = if left {
                write!(line, "{gap}{cell}{pad}")
            } else {
                write!(line, "{gap}{pad}{cell}")
            };
        }
        let line = line.trim_end();
        let _ = writeln!(out, "{}", if nth == 0 { style.dim(line) } else { line.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let rows = [["name", "n", ""], ["a", "1000", "▁█"], ["longer", "7", "█"]];
        let mut out = String::new();
        table(&mut out, &rows.map(|row| row.map(str::to_owned)), Style::new(false));
        assert_eq!(out, "name       n\na       1000  ▁█\nlonger     7  █\n");
    }
}
