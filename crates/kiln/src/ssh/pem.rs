//! PEM (RFC 7468): base64 between two lines that say of what.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_core::Secret;

use super::SshKeyError;

/// Finds the first block; gives its label and content.
pub(super) fn decode(file: &Secret) -> Result<(String, Secret), SshKeyError> {
    let text = std::str::from_utf8(file.bytes()).map_err(|_| SshKeyError::NoKey)?;
    let mut lines = text.lines().map(str::trim);
    let label = lines
        .find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .ok_or(SshKeyError::NoKey)?;
    let end = format!("-----END {label}-----");
    let mut body = Vec::new();
    let mut ended = false;
    for line in lines {
        if line == end {
            ended = true;
            break;
        }
        // The old format's way to say how it is encrypted.
        if line.starts_with("Proc-Type:") && line.contains("ENCRYPTED") {
            return Err(SshKeyError::Encrypted);
        }
        body.extend_from_slice(line.as_bytes());
    }
    if !ended {
        return Err(SshKeyError::Damaged);
    }
    // Wiped when it is dropped.
    let body = Secret::new(body).map_err(|_| SshKeyError::Damaged)?;
    let bytes = STANDARD.decode(body.bytes()).map_err(|_| SshKeyError::Damaged)?;
    Ok((label.to_owned(), Secret::new(bytes).map_err(|_| SshKeyError::Damaged)?))
}
