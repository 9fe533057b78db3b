//! Flags of several fields, as buildx reads them.

/// Splits a CSV record (RFC 4180): a field may be quoted as a whole, and then hold commas, and quotes written twice.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let field;
        (field, rest) = match rest.strip_prefix('"') {
            None => {
                let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                if field.contains('"') {
                    return Err("a quote stands inside a field; quote the whole field".to_owned());
                }
                (field.to_owned(), after)
            }
            Some(quoted) => {
                let mut field = String::new();
                let mut after = quoted;
                loop {
                    let (part, more) = after.split_once('"').ok_or("a quote is not closed")?;
                    field += part;
                    match more.strip_prefix('"') {
                        Some(more) => (field, after) = (field + "\"", more),
                        None => break (field, more),
                    }
                }
            }
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(fields),
            None => return Err("a comma is missing after a quoted field".to_owned()),
        }
    }
}
