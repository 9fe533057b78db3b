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
    let width = |row: &Vec<String>, c: usize| row.get(c).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> =
        (0..columns).map(|c| rows.iter().map(|row| width(row, c)).max().unwrap_or(0)).collect();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        if number > 0 {
            writeln!(f)?;
        }
        write!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

fn clean(cell: &str) -> String {
    cell.chars().flat_map(escape).collect()
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let escaped: Vec<char> = if c.is_control() { c.escape_default().collect() } else { vec![c] };
    escaped.into_iter()
}
