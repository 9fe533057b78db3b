//! Private keys that answer as an ssh agent does: <https://datatracker.ietf.org/doc/draft-ietf-sshm-ssh-agent/>.

use kiln_core::Secret;

use super::SshKeyError;
use super::key::{SigningKey, strings};
use super::openssh::Reader;

pub(crate) const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
pub(crate) const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Some keys. What they are is nowhere to be read again.
pub(crate) struct Keyring {
    keys: Vec<SigningKey>,
}

impl Keyring {
    /// Reads the keys of files.
    pub(crate) fn new(files: &[Secret]) -> Result<Self, SshKeyError> {
        Ok(Self { keys: files.iter().map(SigningKey::read).collect::<Result<_, _>>()? })
    }

    /// Answers a message, type first; none is a failure.
    pub(crate) fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        match request.split_first()? {
            (&REQUEST_IDENTITIES, _) => {
                let count = u32::try_from(self.keys.len()).ok()?;
                let mut answer = vec![IDENTITIES_ANSWER];
                answer.extend(count.to_be_bytes());
                // Without comments: those of files tell who made them, and where.
                answer.extend(self.keys.iter().flat_map(|key| strings(&[&key.public(), b""])));
                Some(answer)
            }
            (&SIGN_REQUEST, body) => {
                let mut body = Reader(body);
                let (public, data) = (body.string().ok()?, body.string().ok()?);
                let flags = body.number().ok()?;
                let key = self.keys.iter().find(|key| key.public() == public)?;
                Some([&[SIGN_RESPONSE][..], &strings(&[&key.sign(data, flags)?])].concat())
            }
            _ => None,
        }
    }
}
