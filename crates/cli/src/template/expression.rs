//! What stands between braces: fields, literals and functions, each result the last argument of the next.

use serde_json::Value;

/// What of Go's is refused, so that nobody takes it for a field.
const KEYWORDS: [&str; 8] = ["define", "template", "block", "break", "continue", "printf", "html", "js"];
const FUNCTIONS: [&str; 16] = [
    "json", "join", "split", "index", "len", "lower", "upper", "title", "print", "println", "eq", "ne",
    "and", "or", "not", "slice",
];
/// Objects with keys that users choose: what is not in there is no mistake.
const MAPS: [&str; 4] = ["Labels", "Annotations", "Volumes", "ExposedPorts"];

/// What a template is filled in with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// `.`: the value, or what `range` and `with` made it.
    pub(super) here: &'a Value,
    /// `$`: the value.
    pub(super) root: &'a Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// None is the single argument itself.
    function: Option<String>,
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone, PartialEq)]
enum Argument {
    /// Of what is at hand.
    Field(Vec<String>),
    /// Of the whole, wherever one is: `$.ID`.
    Root(Vec<String>),
    Literal(Value),
}

/// Returns what a pipe gives.
pub(super) fn result(calls: &[Call], scope: Scope<'_>) -> Result<Value, String> {
    let mut last: Option<Value> = None;
    for call in calls {
        let arguments = call.arguments.iter().map(|argument| evaluate(argument, scope));
        let mut arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        arguments.extend(last.take());
        last = Some(match &call.function {
            Some(function) => apply(function, &arguments)?,
            None => arguments.pop().unwrap_or_default(),
        });
    }
    Ok(last.unwrap_or_default())
}

/// The name of the first field, for a heading.
pub(super) fn first_field(calls: &[Call]) -> Option<&str> {
    calls.iter().flat_map(|call| &call.arguments).find_map(|argument| match argument {
        Argument::Field(path) | Argument::Root(path) => path.last().map(String::as_str),
        Argument::Literal(_) => None,
    })
}

/// As Go has it: nothing, zero and what is empty are false.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Where the closing braces are, outside of strings.
pub(super) fn end_of(text: &str) -> Option<usize> {
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

/// Reads a pipe.
pub(super) fn pipe(text: &str) -> Result<Vec<Call>, String> {
    let tokens = tokens(text)?;
    let calls: Vec<&[String]> = tokens.split(|token| token == "|").collect();
    calls.into_iter().enumerate().map(|(number, tokens)| call(tokens, number == 0, text)).collect()
}

fn call(tokens: &[String], first: bool, text: &str) -> Result<Call, String> {
    let wrong =
        || format!("{{{{{text}}}}}: write a field, such as .ID, or a function of it, such as json .ID");
    let (head, rest) = tokens.split_first().ok_or_else(wrong)?;
    let variable =
        tokens.iter().find(|token| token.starts_with('$') && *token != "$" && !token.starts_with("$."));
    let refused = variable.or_else(|| tokens.iter().find(|token| token.starts_with('(')));
    if let Some(head) = refused.or_else(|| Some(head).filter(|head| KEYWORDS.contains(&head.as_str()))) {
        return Err(format!(
            "{head} is not supported in --format: there are fields, if, with, range, {}, pipes and `table`; --json gives a program all",
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
    let starts_value = head.starts_with(['.', '$', '"', '`', '-'])
        || head.starts_with(|c: char| c.is_ascii_digit())
        || is_word(head);
    if !starts_value {
        return Err(format!("there is no function {head:?}; there are {}", FUNCTIONS.join(", ")));
    }
    if !first || !rest.is_empty() {
        return Err(wrong());
    }
    Ok(Call { function: None, arguments: arguments(tokens)? })
}

/// Go's words for values.
fn is_word(token: &str) -> bool {
    matches!(token, "true" | "false" | "nil")
}

fn argument(token: &str) -> Result<Argument, String> {
    if token == "$" {
        return Ok(Argument::Root(Vec::new()));
    }
    if let Some(below) = token.strip_prefix('$').filter(|below| below.starts_with('.')) {
        return match argument(below)? {
            Argument::Field(path) => Ok(Argument::Root(path)),
            other => Ok(other),
        };
    }
    if token == "nil" {
        return Ok(Argument::Literal(Value::Null));
    }
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

fn evaluate(argument: &Argument, scope: Scope<'_>) -> Result<Value, String> {
    let (path, start) = match argument {
        Argument::Literal(value) => return Ok(value.clone()),
        Argument::Field(path) => (path, scope.here),
        Argument::Root(path) => (path, scope.root),
    };
    let (mut value, mut above) = (start, "");
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
        ("title", [value]) => title(&shown(value)).into(),
        ("print", values) => spaced(values, "").into(),
        ("println", values) => format!("{}\n", spaced(values, " ")).into(),
        ("not", [value]) => (!is_true(value)).into(),
        // The first that decides, as Go has it, or the last.
        ("and", [rest @ .., last]) => rest.iter().find(|value| !is_true(value)).unwrap_or(last).clone(),
        ("or", [rest @ .., last]) => rest.iter().find(|value| is_true(value)).unwrap_or(last).clone(),
        ("eq", [value, others @ ..]) if !others.is_empty() => others.contains(value).into(),
        ("ne", [value, other]) => (value != other).into(),
        ("split", [Value::String(text), Value::String(separator)]) if !separator.is_empty() => {
            text.split(separator.as_str()).map(Value::from).collect()
        }
        ("slice", [Value::String(text), from, to @ ..]) if to.len() < 2 => {
            let at = |value: &Value| value.as_u64().and_then(|at| usize::try_from(at).ok());
            let to = to.first().map_or(Some(text.len()), at);
            let part = at(from).zip(to).and_then(|(from, to)| text.get(from..to));
            part.ok_or_else(|| format!("slice: {text:?} has no such part"))?.into()
        }
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
        ("split", _) => return wrong("split .Field \":\""),
        ("slice", _) => return wrong("slice .Field 0 12"),
        ("eq" | "ne", _) => return wrong(&format!("{function} .Field \"text\"")),
        ("index", _) => return wrong("index .List 0, or index .Map \"key\""),
        _ => return wrong(&format!("{function} .Field")),
    })
}

/// As Go prints values.
pub(super) fn shown(value: &Value) -> String {
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

/// Go's `print`: a space between two that are no texts; `println` has one between all.
fn spaced(values: &[Value], between: &str) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| values.get(before));
        match before {
            Some(before) if between.is_empty() && !before.is_string() && !value.is_string() => out.push(' '),
            Some(_) => out.push_str(between),
            None => {}
        }
        out.push_str(&shown(value));
    }
    out
}

fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
