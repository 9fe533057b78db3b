//! Sub-requests' answers as buildx prints them.

use std::fmt::Write as _;

use kiln::{Checked, MountName, Outline, PlanRequest, Target};

use super::detail;

/// The count, then each finding with its excerpt.
pub(super) fn findings(checked: &Checked, plan: &PlanRequest) -> String {
    let mut out = match checked.findings.len() {
        0 => return "Check complete, no warnings found.".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let lines: Vec<&str> = plan.text.split('\n').collect();
    for finding in &checked.findings {
        let (rule, said) = (finding.rule, detail(&finding.diagnostic));
        let _ = write!(out, "\nWARNING: {} - {}\n{said}\n", rule.name(), rule.url());
        excerpt(&mut out, &plan.file, &lines, finding.lines);
    }
    out
}

/// The instruction's lines, marked, and two or one before and after.
fn excerpt(out: &mut String, file: &str, lines: &[&str], (first, last): (usize, usize)) {
    let last = last.min(lines.len()).max(first);
    let (mut start, mut end) = (first, last);
    let mut around = if first == last { 4 } else { 2 };
    while around > 0 {
        around -= 1;
        if start > 1 {
            start -= 1;
            around = usize::saturating_sub(around, 1);
        }
        if end < lines.len() {
            end += 1;
            around = usize::saturating_sub(around, 1);
        }
    }
    let _ = writeln!(out, "{file}:{first}\n--------------------");
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(
            out,
            " {number:>3} | {mark} {}",
            lines.get(number - 1).map_or("", |line| line.trim_end_matches('\r'))
        );
    }
    out.push_str("--------------------\n");
}

/// The stages.
pub(super) fn targets(targets: &[Target]) -> String {
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in targets {
        let name = match (&target.name, target.is_default) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.clone().unwrap_or_default(),
        };
        rows.push(vec![name, target.description.clone().unwrap_or_default()]);
    }
    columns(&rows, 1)
}

/// What a target takes, a table a kind.
pub(super) fn outline(outline: &Outline) -> String {
    let mut out = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        let name = outline.name.clone().unwrap_or_else(|| "(default)".to_owned());
        let mut rows = vec![vec!["TARGET:".to_owned(), name]];
        let description = outline.description.iter();
        rows.extend(description.map(|text| vec!["DESCRIPTION:".to_owned(), text.clone()]));
        out.push_str(&columns(&rows, 1));
        out.push('\n');
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec()];
        let row = |arg: &kiln::Argument| {
            vec![arg.name.clone(), arg.value.clone(), arg.description.clone().unwrap_or_default()]
        };
        rows.extend(outline.args.iter().map(row));
        out.push_str(&columns(&rows, 3));
        out.push('\n');
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !list.is_empty() {
            let mut rows = vec![vec![title.to_owned(), "REQUIRED".to_owned()]];
            let required = |mount: &MountName| if mount.required { "true" } else { "" }.to_owned();
            rows.extend(list.iter().map(|mount| vec![mount.id.clone(), required(mount)]));
            out.push_str(&columns(&rows, 3));
            out.push('\n');
        }
    }
    // buildx has the form for these in JSON only, and leaves it empty
    if !outline.caches.is_empty() {
        let rows = std::iter::once("CACHE MOUNT").chain(outline.caches.iter().map(|cache| cache.id.as_str()));
        out.push_str(&columns(&rows.map(|id| vec![id.to_owned()]).collect::<Vec<_>>(), 3));
        out.push('\n');
    }
    out
}

/// Columns as Go's text/tabwriter sets them: all but the last as wide as their widest cell and `gap` more.
fn columns(rows: &[Vec<String>], gap: usize) -> String {
    let wide =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 < row.len() { wide(column).unwrap_or(0) + gap } else { 0 };
            let _ = write!(out, "{cell:<width$}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_have_some_lines_around() {
        let rows = [((1, 1), (1, 3)), ((5, 5), (3, 7)), ((9, 9), (7, 9)), ((4, 6), (3, 7)), ((1, 9), (1, 9))];
        let lines: Vec<&str> = (1..10).map(|_| "x").collect();
        for ((first, last), (start, end)) in rows {
            let mut out = String::new();
            excerpt(&mut out, "Dockerfile", &lines, (first, last));
            let numbers: Vec<usize> =
                out.lines().filter_map(|line| line.split_once(" |")?.0.trim().parse().ok()).collect();
            assert_eq!(
                (numbers.first(), numbers.last()),
                (Some(&start), Some(&end)),
                "{first}-{last}\n{out}"
            );
            assert_eq!(out.matches(">>>").count(), last - first + 1);
        }
    }

    #[test]
    fn columns_are_aligned_but_the_last() {
        let rows = [["A", "BB"], ["AAA", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows, 1), "A   BB\nAAA \n");
    }
}
