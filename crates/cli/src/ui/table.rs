//! Tables as docker prints them: aligned columns, three spaces apart.

/// Rows under a heading.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts with the heading.
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// Adds a row. Control characters are shown escaped, so that an id cannot move the cursor.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| clean(cell)).collect());
    }

    /// Leaves a column out.
    pub(crate) fn without(mut self, column: &str) -> Self {
        if let Some(index) = self.rows[0].iter().position(|name| name == column) {
            self.rows.iter_mut().for_each(|row| drop(row.remove(index)));
        }
        self
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        aligned(&self.rows, f)
    }
}

/// Rows of any number of cells.
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(crate) fn new<'a, R: Iterator<Item = &'a str>>(rows: impl Iterator<Item = R>) -> Self {
        Self { rows: rows.map(|row| row.map(clean).collect()).collect() }
    }
}

impl std::fmt::Display for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        aligned(&self.rows, f)
    }
}

fn aligned(rows: &[Vec<String>], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |row: &Vec<String>, c: usize| row.get(c).map_or(0, |cell| columns_of(cell));
    let widths: Vec<usize> =
        (0..columns).map(|c| rows.iter().map(|row| width(row, c)).max().unwrap_or(0)).collect();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 3 - columns_of(cell)));
        }
        if number > 0 {
            writeln!(f)?;
        }
        write!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes what would move the cursor, or turn the line around, as Rust does in a string: a name from a Dockerfile may hold it.
pub(crate) fn clean(cell: &str) -> String {
    cell.chars().flat_map(escape).collect()
}

fn escape(c: char) -> impl Iterator<Item = char> {
    // Directions and invisible characters: <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>.
    let hidden =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let escaped: Vec<char> = if hidden || c.is_control() { c.escape_default().collect() } else { vec![c] };
    escaped.into_iter()
}

/// Columns that a terminal needs: <https://www.unicode.org/reports/tr11/>, as far as names of things go.
fn columns_of(text: &str) -> usize {
    let of = |c: char| match c {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    };
    text.chars().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_stays_one_whatever_names_there_are() {
        let mut table = Table::new(["ID", "SIZE"]);
        for id in ["a\nb", "\x1b[31mred", "\u{202e}evil", "größe", "日本語", "cafe\u{301}", ""] {
            table.row([id.to_owned(), "1 B".to_owned()]);
        }
        let shown = table.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 8);
        assert_eq!(
            lines[1..4].iter().map(|line| line.split("  ").next().unwrap()).collect::<Vec<_>>(),
            ["a\\nb", "\\u{1b}[31mred", "\\u{202e}evil",]
        );
        // Each second column begins at the same place.
        let starts: Vec<usize> =
            lines.iter().skip(1).map(|line| columns_of(line.strip_suffix("1 B").unwrap())).collect();
        assert!(starts.iter().all(|start| *start == starts[0]), "{shown}");
    }
}
