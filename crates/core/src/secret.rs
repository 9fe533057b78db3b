//! A value that nobody must see.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A secret's bytes.
///
/// They are wiped when it is dropped. `Debug` shows none of them, so that no message and no crash does. They are serialized only on the way to another
/// process of kiln's: as hexadecimal digits, so that any bytes may be in them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Larger than [`Secret::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret is larger than 500 KiB")]
pub struct SecretTooLarge;

impl Secret {
    /// As large as one may be, bytes: BuildKit's limit.
    pub const MAX: usize = 500 * 1024;

    /// Takes bytes over.
    ///
    /// # Errors
    /// They are too many.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretTooLarge> {
        if bytes.len() > Self::MAX { Err(SecretTooLarge) } else { Ok(Self(bytes)) }
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // What nobody reads again need not be written, else.
        std::hint::black_box(&self.0);
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        let hex: String = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        // The text itself is in no message.
        let bad = || D::Error::custom("a secret is not written as pairs of hexadecimal digits");
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(bad());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
        let bytes = pairs.iter().map(byte).collect::<Option<Vec<u8>>>().ok_or_else(bad)?;
        Self::new(bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new(b"hunter2".to_vec()).unwrap();
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(***) Some(\n    Secret(***),\n)");
    }

    #[test]
    fn any_bytes_survive_the_trip() {
        let secret = Secret::new((0..=255).collect()).unwrap();
        let text = serde_json::to_string(&secret).unwrap();
        assert!(text.starts_with("\"00010203") && text.ends_with("fdfeff\""), "{text}");
        assert_eq!(serde_json::from_str::<Secret>(&text).unwrap(), secret);
        for (text, said) in [("\"abc\"", "pairs"), ("\"zz\"", "pairs"), ("\"é\"", "pairs")] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("zz"), "{error}");
        }
    }

    #[test]
    fn size_is_limited() {
        assert!(Secret::new(vec![0; Secret::MAX]).is_ok());
        assert_eq!(Secret::new(vec![0; Secret::MAX + 1]), Err(SecretTooLarge));
    }
}
