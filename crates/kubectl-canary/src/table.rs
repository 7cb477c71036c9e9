//! Columns of text, aligned. It knows nothing of what stands in them.

use crate::output::{Paint, Tone};

/// A table without lines: a head, then rows. The last cell of a row may be as long as it likes.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    /// A table with a head.
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (Tone, String)>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is no row.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each after `indent`.
    #[must_use]
    pub fn render(&self, indent: &str, paint: Paint) -> String {
        let head = self.head.iter().map(|name| (Tone::Quiet, (*name).to_owned())).collect();
        let rows: Vec<&Vec<(Tone, String)>> = std::iter::once(&head).chain(&self.rows).collect();
        let padded = |row: &&Vec<(Tone, String)>, column: usize| {
            row.get(column).filter(|_| column.saturating_add(1) < row.len()).map(|cell| width(&cell.1))
        };
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| rows.iter().filter_map(|row| padded(row, column)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in rows {
            let mut line = indent.to_owned();
            for (index, ((tone, cell), column)) in row.iter().zip(&widths).enumerate() {
                line.push_str(&paint.paint(*tone, cell));
                if index.saturating_add(1) < row.len() {
                    line.push_str(&" ".repeat(column.saturating_sub(width(cell)).saturating_add(2)));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Columns on a terminal, near enough: names and figures are plain letters.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colours() {
        let mut table = Table::new(&["NAME", "VERDICT", "WHY"]);
        table.row([
            (Tone::Plain, "errors".to_owned()),
            (Tone::Bad, "Breach".to_owned()),
            (Tone::Plain, "x".to_owned()),
        ]);
        table.row([(Tone::Plain, "p".to_owned()), (Tone::Good, "Pass".to_owned()), (Tone::Plain, String::new())]);
        assert_eq!(table.render("  ", Paint::NONE), "  NAME    VERDICT  WHY\n  errors  Breach   x\n  p       Pass\n");
        table.row([(Tone::Plain, "age".to_owned()), (Tone::Plain, "a sentence beside the columns".to_owned())]);
        assert!(table.render("", Paint::NONE).contains("\nage     a sentence beside the columns\n"));
        assert!(table.render("", Paint::NONE).contains("\nerrors  Breach   x\n"));
        let coloured = table.render("", Paint { colours: true });
        assert!(coloured.contains("\u{1b}[32mPass\u{1b}[0m"));
    }
}
