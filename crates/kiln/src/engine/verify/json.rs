//! Where two JSON documents differ first.

use serde_json::Value;

/// Returns the member that differs first, in the order of the first document, and both values; an absent one is empty.
pub(super) fn difference(first: &[u8], other: &[u8]) -> (String, String, String) {
    let parse = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let (first, other): (Value, Value) = (parse(first), parse(other));
    let mut path = String::new();
    let (first, other) = descend(Some(&first), Some(&other), &mut path);
    let text = |value: Option<&Value>| value.map_or_else(String::new, Value::to_string);
    (path, text(first), text(other))
}

/// Goes down as long as there is a single place to go to: the first member that is not the same.
fn descend<'v>(
    first: Option<&'v Value>,
    other: Option<&'v Value>,
    path: &mut String,
) -> (Option<&'v Value>, Option<&'v Value>) {
    match (first, other) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
            for name in names {
                if ours.get(name) != theirs.get(name) {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                    return descend(ours.get(name), theirs.get(name), path);
                }
            }
            (first, other)
        }
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            let most = ours.len().max(theirs.len());
            match (0..most).find(|&at| ours.get(at) != theirs.get(at)) {
                Some(at) => {
                    path.push_str(&format!("[{at}]"));
                    descend(ours.get(at), theirs.get(at), path)
                }
                None => (first, other),
            }
        }
        _ => (first, other),
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_first_member_that_differs_is_named() {
        let rows = [
            (r#"{"a":1,"b":{"c":[1,2,3]}}"#, r#"{"a":1,"b":{"c":[1,5,3]}}"#, ("b.c[1]", "2", "5")),
            (r#"{"a":1}"#, r#"{"a":1,"z":"x"}"#, ("z", "", "\"x\"")),
            (r#"{"a":[1]}"#, r#"{"a":[]}"#, ("a[0]", "1", "")),
            (r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#, ("a", r#"{"b":1}"#, "[1]")),
            ("1", "2", ("", "1", "2")),
        ];
        for (first, other, (field, ours, theirs)) in rows {
            let expected = (field.to_owned(), ours.to_owned(), theirs.to_owned());
            assert_eq!(difference(first.as_bytes(), other.as_bytes()), expected, "{first} {other}");
        }
    }
}
