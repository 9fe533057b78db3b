//! Text as Go's `%q` writes it; BuildKit's history lines and kiln's text forms have it.

/// Quotes one string.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    kiln_dockerfile::print::quote(&mut out, text);
    out
}

/// Quotes a list: `["a" "b"]`.
pub(crate) fn quote_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", items.join(" "))
}
