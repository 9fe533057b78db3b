//! `--format`: the part of Go's templates (<https://pkg.go.dev/text/template>) that docker's users write. A value goes in, a
//! line comes out; nothing else is looked at.
//!
//! There are fields (`{{.Config.Env}}`), functions of docker's and Go's (`json`, `join`, `index`, `len`, `lower`, `upper`),
//! pipes between them, and `table`. What Go has besides is refused by name.

use serde_json::Value;

/// What of Go's is refused, so that nobody takes it for a field.
const KEYWORDS: [&str; 13] = [
    "if", "else", "end", "range", "with", "define", "template", "block", "break", "continue", "printf",
    "html", "js",
];
const FUNCTIONS: [&str; 6] = ["json", "join", "index", "len", "lower", "upper"];
/// Objects with keys that users choose: what is not in there is no mistake.
const MAPS: [&str; 4] = ["Labels", "Annotations", "Volumes", "ExposedPorts"];

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
    /// What is between braces: each result is the last argument of the next.
    Pipe(Vec<Call>),
}

#[derive(Debug, Clone, PartialEq)]
struct Call {
    /// None is the single argument itself.
    function: Option<String>,
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone, PartialEq)]
enum Argument {
    Field(Vec<String>),
    Literal(Value),
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
        let (mut parts, mut rest) = (Vec::new(), body.as_str());
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
            parts.push(Part::Text(before.to_owned()));
            if !expression.trim().starts_with("/*") {
                parts.push(Part::Pipe(pipe(expression)?));
            }
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self { table, parts })
    }

    /// Whether there is a heading above the rows.
    pub(crate) fn is_table(&self) -> bool {
        self.table
    }

    /// Returns the heading: the fields' names, `CreatedSince` as `CREATED SINCE`.
    pub(crate) fn heading(&self) -> String {
        let name = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Pipe(calls) => {
                let mut arguments = calls.iter().flat_map(|call| &call.arguments);
                arguments
                    .find_map(|argument| match argument {
                        Argument::Field(path) => path.last().map(|name| words(name)),
                        Argument::Literal(_) => None,
                    })
                    .unwrap_or_default()
            }
        };
        self.parts.iter().map(name).collect()
    }

    /// Fills it in.
    pub(crate) fn render(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Pipe(calls) => {
                    let mut last: Option<Value> = None;
                    for call in calls {
                        let mut arguments = call
                            .arguments
                            .iter()
                            .map(|argument| evaluate(argument, value))
                            .collect::<Result<Vec<_>, _>>()?;
                        arguments.extend(last.take());
                        last = Some(match &call.function {
                            Some(function) => apply(function, &arguments)?,
                            None => arguments.pop().unwrap_or_default(),
                        });
                    }
                    out.push_str(&shown(&last.unwrap_or_default()));
                }
            }
        }
        Ok(out)
    }
}

/// Where the closing braces are, outside of strings.
fn end_of(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn pipe(text: &str) -> Result<Vec<Call>, String> {
    let tokens = tokens(text)?;
    let calls: Vec<&[String]> = tokens.split(|token| token == "|").collect();
    calls.into_iter().enumerate().map(|(number, tokens)| call(tokens, number == 0, text)).collect()
}

fn call(tokens: &[String], first: bool, text: &str) -> Result<Call, String> {
    let wrong =
        || format!("{{{{{text}}}}}: write a field, such as .ID, or a function of it, such as json .ID");
    let (head, rest) = tokens.split_first().ok_or_else(wrong)?;
    if KEYWORDS.contains(&head.as_str()) || head.starts_with(['$', '(']) {
        return Err(format!(
            "{head} is not supported in --format: there are fields, {}, pipes and `table`; --json gives a program all",
            FUNCTIONS.join(", ")
        ));
    }
    let arguments =
        |tokens: &[String]| tokens.iter().map(|token| argument(token)).collect::<Result<Vec<_>, _>>();
    if FUNCTIONS.contains(&head.as_str()) {
        if first && rest.is_empty() {
            return Err(format!("{head} wants a field: {head} .ID"));
        }
        return Ok(Call { function: Some(head.clone()), arguments: arguments(rest)? });
    }
    let starts_value =
        head.starts_with(['.', '"', '`', '-']) || head.starts_with(|c: char| c.is_ascii_digit());
    if !starts_value {
        return Err(format!("there is no function {head:?}; there are {}", FUNCTIONS.join(", ")));
    }
    if !first || !rest.is_empty() {
        return Err(wrong());
    }
    Ok(Call { function: None, arguments: arguments(tokens)? })
}

fn argument(token: &str) -> Result<Argument, String> {
    if let Some(path) = token.strip_prefix('.') {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let word = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        return match &path[..] {
            [only] if only.is_empty() => Ok(Argument::Field(Vec::new())),
            path if path.iter().all(word) => Ok(Argument::Field(path.to_vec())),
            _ => Err(format!(
                "{token:?} is no field; for a key with other characters write index .Labels \"a.b\""
            )),
        };
    }
    if let Some(raw) = token.strip_prefix('`') {
        return Ok(Argument::Literal(raw.trim_end_matches('`').into()));
    }
    serde_json::from_str(token)
        .map(Argument::Literal)
        .map_err(|_| format!("{token:?} is neither a field (.{token}), a \"text\" nor a number"))
}

/// Words, strings with their quotes, and `|`.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '|' => 1,
            '"' | '`' => {
                let inside = &rest[1..];
                let mut escaped = false;
                let close = inside.char_indices().find(|(_, at)| {
                    let here = *at == c && !escaped;
                    escaped = c == '"' && *at == '\\' && !escaped;
                    here
                });
                close.ok_or_else(|| format!("a text without end: {rest}"))?.0 + 2
            }
            _ => rest.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(rest.len()),
        };
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

fn evaluate(argument: &Argument, root: &Value) -> Result<Value, String> {
    let path = match argument {
        Argument::Literal(value) => return Ok(value.clone()),
        Argument::Field(path) => path,
    };
    let (mut value, mut above) = (root, "");
    for name in path {
        let Some(fields) = value.as_object() else {
            return if value.is_null() {
                Ok("<no value>".into())
            } else {
                Err(format!(".{above} has no fields"))
            };
        };
        value = match fields.get(name) {
            Some(value) => value,
            None if MAPS.contains(&above) => return Ok("<no value>".into()),
            None => {
                let known: Vec<String> = fields.keys().map(|key| format!(".{key}")).collect();
                return Err(format!("there is no field .{name}; there are {}", known.join(", ")));
            }
        };
        above = name;
    }
    Ok(value.clone())
}

fn apply(function: &str, arguments: &[Value]) -> Result<Value, String> {
    let wrong = |usage: &str| Err(format!("{function}: write {usage}"));
    Ok(match (function, arguments) {
        ("json", [value]) => value.to_string().into(),
        ("lower", [value]) => shown(value).to_lowercase().into(),
        ("upper", [value]) => shown(value).to_uppercase().into(),
        ("len", [Value::Null]) => 0.into(),
        ("len", [Value::Array(items)]) => items.len().into(),
        ("len", [Value::Object(fields)]) => fields.len().into(),
        ("len", [Value::String(text)]) => text.len().into(),
        ("join", [Value::Null, _]) => "".into(),
        ("join", [Value::Array(items), Value::String(separator)]) => {
            items.iter().map(shown).collect::<Vec<_>>().join(separator).into()
        }
        ("index", [Value::Array(items), Value::Number(at)]) => {
            let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
            let found = at.and_then(|at| items.get(at));
            found.cloned().ok_or_else(|| format!("index: there are only {} of it", items.len()))?
        }
        // As Go: a map's zero value.
        ("index", [Value::Object(fields), Value::String(key)]) => {
            fields.get(key).cloned().unwrap_or_else(|| "".into())
        }
        ("index", [Value::Null, Value::String(_)]) => "".into(),
        ("join", _) => return wrong("join .List \", \""),
        ("index", _) => return wrong("index .List 0, or index .Map \"key\""),
        _ => return wrong(&format!("{function} .Field")),
    })
}

/// As Go prints values.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(key, value)| format!("{key}:{}", shown(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
    }
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
