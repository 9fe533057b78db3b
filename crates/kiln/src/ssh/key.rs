//! A private key that signs. The cryptography is ring's, which TLS brings along.

use kiln_core::Secret;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

use super::openssh::{self, Parts};
use super::{SshKeyError, pem};

/// Bits in a signature request: draft-ietf-sshm-ssh-agent, section 6.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// One key.
pub(super) enum SigningKey {
    Ed25519(Ed25519KeyPair),
    Ecdsa { key: EcdsaKeyPair, curve: &'static str },
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Reads the first key of a file.
    pub(super) fn read(file: &Secret) -> Result<Self, SshKeyError> {
        let (label, content) = pem::decode(file)?;
        let der = content.bytes();
        match label.as_str() {
            "OPENSSH PRIVATE KEY" => Self::from_parts(openssh::parse(der)?),
            "RSA PRIVATE KEY" => Ok(Self::Rsa(RsaKeyPair::from_der(der).map_err(refused)?)),
            "PRIVATE KEY" => Self::from_pkcs8(der),
            "ENCRYPTED PRIVATE KEY" => Err(SshKeyError::Encrypted),
            _ => Err(SshKeyError::Label { label }),
        }
    }

    fn from_parts(parts: Parts<'_>) -> Result<Self, SshKeyError> {
        match parts {
            Parts::Ed25519 { public, seed } => {
                Ok(Self::Ed25519(Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(refused)?))
            }
            Parts::Ecdsa { curve, public, secret } => {
                let (name, algorithm, length) = match curve {
                    b"nistp256" => ("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING, 32),
                    _ => ("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING, 48),
                };
                let padded = Secret::new(padded(secret, length)?).map_err(|_| SshKeyError::Damaged)?;
                ecdsa(name, algorithm, padded.bytes(), public)
            }
            Parts::Rsa { n, e, d, inverse, p, q } => {
                let wiped = |bytes| Secret::new(bytes).map_err(|_| SshKeyError::Damaged);
                let (d_p, d_q) = (wiped(remainder(d, p))?, wiped(remainder(d, q))?);
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents { n, e },
                    d,
                    p,
                    q,
                    dP: d_p.bytes(),
                    dQ: d_q.bytes(),
                    qInv: inverse,
                };
                Ok(Self::Rsa(RsaKeyPair::from_components(&components).map_err(refused)?))
            }
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, SshKeyError> {
        let random = SystemRandom::new();
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(key));
        }
        for (curve, algorithm) in
            [("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING), ("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING)]
        {
            if let Ok(key) = EcdsaKeyPair::from_pkcs8(algorithm, der, &random) {
                return Ok(Self::Ecdsa { key, curve });
            }
        }
        Ok(Self::Rsa(RsaKeyPair::from_pkcs8(der).map_err(refused)?))
    }

    /// The public key as ssh writes it: RFC 4253, RFC 5656, RFC 8709.
    pub(super) fn public(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => strings(&[b"ssh-ed25519", key.public_key().as_ref()]),
            Self::Ecdsa { key, curve } => {
                let name = format!("ecdsa-sha2-{curve}");
                strings(&[name.as_bytes(), curve.as_bytes(), key.public_key().as_ref()])
            }
            Self::Rsa(key) => {
                let public: PublicKeyComponents<Vec<u8>> = key.public().into();
                strings(&[b"ssh-rsa", &integer(&public.e), &integer(&public.n)])
            }
        }
    }

    /// Signs: algorithm and signature. None for what nobody should accept any more, which is RSA with SHA-1.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(key) => Some(strings(&[b"ssh-ed25519", key.sign(data).as_ref()])),
            Self::Ecdsa { key, curve } => {
                let signature = key.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                let name = format!("ecdsa-sha2-{curve}");
                Some(strings(&[name.as_bytes(), &strings(&[&integer(r), &integer(s)])]))
            }
            Self::Rsa(key) => {
                let (name, padding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, data, &mut signature).ok()?;
                Some(strings(&[name.as_bytes(), &signature]))
            }
        }
    }
}

fn ecdsa(
    curve: &'static str,
    algorithm: &'static EcdsaSigningAlgorithm,
    secret: &[u8],
    public: &[u8],
) -> Result<SigningKey, SshKeyError> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, secret, public, &random);
    Ok(SigningKey::Ecdsa { key: key.map_err(refused)?, curve })
}

fn refused(error: ring::error::KeyRejected) -> SshKeyError {
    SshKeyError::Refused { reason: error.to_string() }
}

/// Each with its length: RFC 4251, section 5.
pub(crate) fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
    parts.iter().flat_map(|part| [&length(part)[..], part].concat()).collect()
}

/// A number that is not negative: no zero in front, but where the first bit would be taken for a sign.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let sign = number.first().is_some_and(|byte| byte & 0x80 != 0);
    [if sign { &[0_u8][..] } else { &[] }, number].concat()
}

fn padded(number: &[u8], length: usize) -> Result<Vec<u8>, SshKeyError> {
    let zeros = length.checked_sub(number.len()).ok_or(SshKeyError::Damaged)?;
    Ok([&vec![0; zeros][..], number].concat())
}

/// `d mod (prime - 1)`, which OpenSSH leaves out of its files: long division, bit by bit. Big-endian.
fn remainder(d: &[u8], prime: &[u8]) -> Vec<u8> {
    let mut modulus = prime.to_vec();
    if let Some(last) = modulus.last_mut() {
        // A prime is odd.
        *last &= 0xfe;
    }
    let mut rest = vec![0_u8; modulus.len() + 1];
    let modulus = [&[0_u8][..], &modulus].concat();
    for bit in d.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let next = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = next;
        }
        if rest >= modulus {
            let mut borrow = false;
            for (byte, other) in rest.iter_mut().zip(&modulus).rev() {
                let (first, below) = byte.overflowing_sub(*other);
                let (second, below_again) = first.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (second, below || below_again);
            }
        }
    }
    let zeros = rest.iter().take_while(|byte| **byte == 0).count();
    rest.split_off(zeros)
}

#[cfg(test)]
mod tests;
