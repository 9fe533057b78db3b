//! Paragraphs of `Field: value` lines: Debian's control files (deb822(5)), Python's metadata (RFC 822).

use std::collections::HashMap;

/// One paragraph, its fields by lower-case name. Lines that go on are joined by a line feed; of equal fields all values
/// are kept, in order.
#[derive(Debug, Default)]
pub(crate) struct Stanza {
    fields: HashMap<String, Vec<String>>,
}

impl Stanza {
    /// Returns a field's first value, without blanks around; an empty one is none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns all values of a field that is there several times.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.fields.get(name).map_or(&[][..], Vec::as_slice);
        values.iter().map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Returns a field as an owned text.
    pub(crate) fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// Reads paragraphs, which empty lines separate. Lines that are none of a paragraph are jumped over.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = Stanza> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut stanza = Stanza::default();
        let mut last: Option<String> = None;
        loop {
            let Some(line) = lines.next() else {
                return Some(stanza).filter(|stanza| !stanza.is_empty());
            };
            if line.trim().is_empty() {
                if !stanza.is_empty() {
                    return Some(stanza);
                }
            } else if line.starts_with([' ', '\t']) {
                let value = last.as_ref().and_then(|name| stanza.fields.get_mut(name)?.last_mut());
                if let Some(value) = value {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                let name = name.to_lowercase();
                stanza.fields.entry(name.clone()).or_default().push(value.trim().to_owned());
                last = Some(name);
            }
        }
    })
}
