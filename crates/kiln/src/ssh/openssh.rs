//! The format of `ssh-keygen` since 2014:
//! <https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key>.

use super::SshKeyError;

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// The parts of a key, still in the file's bytes; numbers are big-endian without leading zeros.
pub(super) enum Parts<'a> {
    Ed25519 { public: &'a [u8], seed: &'a [u8] },
    Ecdsa { curve: &'a [u8], public: &'a [u8], secret: &'a [u8] },
    Rsa { n: &'a [u8], e: &'a [u8], d: &'a [u8], inverse: &'a [u8], p: &'a [u8], q: &'a [u8] },
}

/// Reads the one key of a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Parts<'_>, SshKeyError> {
    let mut file = Reader(bytes.strip_prefix(MAGIC).ok_or(SshKeyError::Damaged)?);
    let cipher = file.string()?;
    if cipher != b"none" {
        return Err(SshKeyError::Encrypted);
    }
    let (_kdf, _options) = (file.string()?, file.string()?);
    if file.number()? != 1 {
        return Err(SshKeyError::Damaged);
    }
    let _public = file.string()?;
    let mut key = Reader(file.string()?);
    // Twice the same number, so that a wrong passphrase is noticed.
    if key.number()? != key.number()? {
        return Err(SshKeyError::Damaged);
    }
    match key.string()? {
        b"ssh-ed25519" => {
            let (public, both) = (key.string()?, key.string()?);
            let seed = both.strip_suffix(public).filter(|seed| seed.len() == 32);
            Ok(Parts::Ed25519 { public, seed: seed.ok_or(SshKeyError::Damaged)? })
        }
        b"ecdsa-sha2-nistp256" | b"ecdsa-sha2-nistp384" => {
            Ok(Parts::Ecdsa { curve: key.string()?, public: key.string()?, secret: key.integer()? })
        }
        b"ssh-rsa" => {
            let (n, e, d) = (key.integer()?, key.integer()?, key.integer()?);
            let (inverse, p, q) = (key.integer()?, key.integer()?, key.integer()?);
            Ok(Parts::Rsa { n, e, d, inverse, p, q })
        }
        other => Err(SshKeyError::Algorithm { algorithm: String::from_utf8_lossy(other).into_owned() }),
    }
}

/// RFC 4251, section 5.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> Result<u32, SshKeyError> {
        let (number, rest) = self.0.split_first_chunk::<4>().ok_or(SshKeyError::Damaged)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], SshKeyError> {
        let length = self.number()? as usize;
        let (string, rest) = self.0.split_at_checked(length).ok_or(SshKeyError::Damaged)?;
        self.0 = rest;
        Ok(string)
    }

    /// One that is not negative.
    fn integer(&mut self) -> Result<&'a [u8], SshKeyError> {
        let bytes = self.string()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(&bytes[zeros..])
    }
}
