//! `--format`: the part of Go's templates (<https://pkg.go.dev/text/template>) that docker's users write. A value goes in, a
//! line comes out; nothing else is looked at.
//!
//! There are fields (`{{.Config.Env}}`), functions of docker's and Go's (`json`, `join`, `index`, `eq`, ...), pipes between
//! them, `if`, `with` and `range` with their `else`, and `table`. What Go has besides is refused by name.

mod expression;

use serde_json::Value;

use expression::{Call, Scope, end_of, first_field, is_true, pipe, result, shown};

/// A template, understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    /// Whether rows stand below a heading.
    table: bool,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Pipe(Vec<Call>),
    Block { kind: Kind, pipe: Vec<Call>, body: Vec<Part>, otherwise: Vec<Part> },
}

/// What decides about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    If,
    /// As `if`, and the value becomes `.`.
    With,
    /// Once for each item, which becomes `.`.
    Range,
}

/// A template's text, cut at its braces.
#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    Text(&'a str),
    Braces(&'a str),
}

/// How the parts of a block ended.
enum End<'a> {
    OfText,
    Word,
    /// With what comes behind `else`.
    Else(&'a str),
}

impl Template {
    /// Reads a template: docker's `json` and `table ...` among them. Errors are in the user's words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "json" {
            return Self::parse("{{json .}}");
        }
        let (table, body) = match text.strip_prefix("table") {
            Some(rest) if rest.starts_with(char::is_whitespace) => (true, rest.trim_start()),
            Some("") => return Err("`table` wants columns: table {{.ID}}\\t{{.Size}}".to_owned()),
            _ => (false, text),
        };
        let body = body.replace("\\t", "\t").replace("\\n", "\n");
        let pieces = cut(&body)?;
        let mut pieces = pieces.iter().copied();
        match parts(&mut pieces, 0)? {
            (parts, End::OfText) => Ok(Self { table, parts }),
            (_, End::Word | End::Else(_)) => Err("an end or else without if, with or range".to_owned()),
        }
    }

    /// Whether there is a heading above the rows.
    pub(crate) fn is_table(&self) -> bool {
        self.table
    }

    /// Returns the heading: the fields' names, `CreatedSince` as `CREATED SINCE`.
    pub(crate) fn heading(&self) -> String {
        let name = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Pipe(pipe) | Part::Block { pipe, .. } => first_field(pipe).map(words).unwrap_or_default(),
        };
        self.parts.iter().map(name).collect()
    }

    /// Fills it in.
    pub(crate) fn render(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.parts, Scope { here: value, root: value }, &mut out)?;
        Ok(out)
    }
}

/// Cuts a text at its braces; `{{-` and `-}}` take the space beside them, comments are left out.
fn cut(body: &str) -> Result<Vec<Piece<'_>>, String> {
    let (mut pieces, mut rest) = (Vec::new(), body);
    while let Some(start) = rest.find("{{") {
        let (mut before, inside) = (&rest[..start], &rest[start + 2..]);
        let end = end_of(inside).ok_or_else(|| format!("{{{{ without }}}} at {:?}", &rest[start..]))?;
        let (mut expression, mut after) = (&inside[..end], &inside[end + 2..]);
        if let Some(trimmed) = expression.strip_prefix("- ") {
            (before, expression) = (before.trim_end(), trimmed);
        }
        if let Some(trimmed) = expression.strip_suffix(" -") {
            (after, expression) = (after.trim_start(), trimmed);
        }
        pieces.push(Piece::Text(before));
        if !expression.trim().starts_with("/*") {
            pieces.push(Piece::Braces(expression));
        }
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// Deeper than anybody writes, and no danger to the stack.
const MOST_BLOCKS: usize = 32;

/// Reads parts up to the end of the block that they are in, or of the text.
fn parts<'a>(
    pieces: &mut impl Iterator<Item = Piece<'a>>,
    depth: usize,
) -> Result<(Vec<Part>, End<'a>), String> {
    if depth > MOST_BLOCKS {
        return Err(format!("blocks in blocks, more than {MOST_BLOCKS} deep"));
    }
    let mut found = Vec::new();
    while let Some(piece) = pieces.next() {
        let expression = match piece {
            Piece::Text("") => continue,
            Piece::Text(text) => {
                found.push(Part::Text(text.to_owned()));
                continue;
            }
            Piece::Braces(expression) => expression.trim(),
        };
        let (word, rest) = expression.split_once(char::is_whitespace).unwrap_or((expression, ""));
        match (word, rest.trim()) {
            ("end", "") => return Ok((found, End::Word)),
            ("else", rest) => return Ok((found, End::Else(rest))),
            (word, rest) => match kind(word) {
                Some(kind) => found.push(block(kind, word, rest, pieces, depth)?),
                None => found.push(Part::Pipe(pipe(expression)?)),
            },
        }
    }
    Ok((found, End::OfText))
}

fn kind(word: &str) -> Option<Kind> {
    match word {
        "if" => Some(Kind::If),
        "with" => Some(Kind::With),
        "range" => Some(Kind::Range),
        _ => None,
    }
}

/// Reads a block to its `end`.
fn block<'a>(
    kind: Kind,
    word: &str,
    condition: &str,
    pieces: &mut impl Iterator<Item = Piece<'a>>,
    depth: usize,
) -> Result<Part, String> {
    if condition.is_empty() {
        return Err(format!("{word} wants a field: {word} .Labels"));
    }
    let pipe = pipe(condition)?;
    // Not `impl Iterator` all the way down: each level would be a type of its own.
    let pieces: &mut dyn Iterator<Item = Piece<'a>> = pieces;
    let unended = || format!("{{{{{word} {condition}}}}} has no {{{{end}}}}");
    let (body, end) = parts(&mut &mut *pieces, depth + 1)?;
    let otherwise = match end {
        End::OfText => return Err(unended()),
        End::Word => Vec::new(),
        End::Else("") => match parts(&mut &mut *pieces, depth + 1)? {
            (otherwise, End::Word) => otherwise,
            (_, End::OfText) => return Err(unended()),
            (_, End::Else(_)) => return Err(format!("two else of one {word}")),
        },
        // Its `end` is this one's, too.
        End::Else(rest) => {
            let (next, condition) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let next_kind = self::kind(next).filter(|next| *next == kind && kind != Kind::Range);
            let next_kind =
                next_kind.ok_or_else(|| format!("{{{{else {rest}}}}}: write else, or else {word} .Field"))?;
            vec![block(next_kind, next, condition.trim(), &mut &mut *pieces, depth + 1)?]
        }
    };
    Ok(Part::Block { kind, pipe, body, otherwise })
}

fn render(parts: &[Part], scope: Scope<'_>, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Pipe(calls) => out.push_str(&shown(&result(calls, scope)?)),
            Part::Block { kind, pipe, body, otherwise } => {
                let value = result(pipe, scope)?;
                let items: Vec<&Value> = match (kind, &value) {
                    (Kind::Range, Value::Array(items)) => items.iter().collect(),
                    (Kind::Range, Value::Object(fields)) => fields.values().collect(),
                    (Kind::Range, Value::Null) => Vec::new(),
                    (Kind::Range, other) => return Err(format!("range: {} is no list", shown(other))),
                    (Kind::If, value) => is_true(value).then_some(scope.here).into_iter().collect(),
                    (Kind::With, value) => is_true(value).then_some(value).into_iter().collect(),
                };
                if items.is_empty() {
                    render(otherwise, scope, out)?;
                }
                for here in items {
                    render(body, Scope { here, ..scope }, out)?;
                }
            }
        }
    }
    Ok(())
}

/// `CreatedSince` -> `CREATED SINCE`.
fn words(name: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in name.chars() {
        if lower && c.is_uppercase() {
            out.push(' ');
        }
        lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

#[cfg(test)]
mod tests;
