//! Keys are made by ssh-keygen, which judges the signatures, too.

use std::path::Path;
use std::process::Command;

use kiln_testkit::tools::tool;

use super::*;

/// Makes a key of a type; gives the file.
fn made(dir: &Path, args: &[&str]) -> Option<Secret> {
    let mut keygen = tool("ssh-keygen")?;
    let path = dir.join("key");
    // It asks before it writes over one.
    _ = std::fs::remove_file(&path);
    keygen.args(["-q", "-N", "", "-C", "somebody", "-f"]).arg(&path).args(args);
    kiln_testkit::tools::run(&mut keygen);
    Some(Secret::new(std::fs::read(path).unwrap()).unwrap())
}

/// The second word of key.pub.
fn public(dir: &Path) -> Vec<u8> {
    use base64::Engine as _;
    let text = std::fs::read_to_string(dir.join("key.pub")).unwrap();
    base64::engine::general_purpose::STANDARD.decode(text.split(' ').nth(1).unwrap()).unwrap()
}

const TYPES: [&[&str]; 6] = [
    &["-t", "ed25519"],
    &["-t", "ecdsa", "-b", "256"],
    &["-t", "ecdsa", "-b", "384"],
    &["-t", "rsa", "-b", "2048"],
    &["-t", "rsa", "-b", "2048", "-m", "PEM"],
    &["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
];

#[test]
fn what_ssh_keygen_makes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for args in TYPES {
        let Some(file) = made(dir.path(), args) else { return };
        let key = SigningKey::read(&file).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        assert_eq!(key.public(), public(dir.path()), "{args:?}");
        assert!(key.sign(b"data", RSA_SHA2_256).is_some(), "{args:?}");
        let sha1 = key.sign(b"data", 0);
        assert_eq!(sha1.is_none(), args.contains(&"rsa"), "{args:?}");
    }
}

#[test]
fn what_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let read = |file: &Secret| SigningKey::read(file).err().expect("it cannot be used").to_string();
    let Some(file) = made(dir.path(), &["-t", "ecdsa", "-b", "521"]) else { return };
    assert!(read(&file).contains("ecdsa-sha2-nistp521"), "{}", read(&file));
    let file = made(dir.path(), &["-t", "ecdsa", "-b", "256", "-m", "PEM"]).unwrap();
    assert!(read(&file).contains("\"EC PRIVATE KEY\""), "{}", read(&file));
    let change = |args: &[&str]| {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-p", "-P", "", "-N", "secret", "-f"]).arg(dir.path().join("key")).args(args);
        kiln_testkit::tools::run(&mut command);
        Secret::new(std::fs::read(dir.path().join("key")).unwrap()).unwrap()
    };
    for (kind, args) in [("ed25519", &[][..]), ("rsa", &["-m", "PEM"]), ("rsa", &["-m", "PKCS8"])] {
        made(dir.path(), &["-t", kind]);
        assert!(read(&change(args)).contains("passphrase"), "{kind} {args:?}");
    }
    for text in ["", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"] {
        let error = read(&Secret::new(text.into()).unwrap());
        assert!(!error.contains("AAAA"), "{error}");
    }
}

#[test]
fn a_damaged_key_is_an_error_wherever_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    for args in [TYPES[0], TYPES[3]] {
        let Some(file) = made(dir.path(), args) else { return };
        let (_, content) = pem::decode(&file).unwrap();
        for end in 0..content.bytes().len() {
            assert!(openssh::parse(&content.bytes()[..end]).is_err(), "{args:?} {end}");
        }
    }
}

#[test]
fn remainders() {
    // 100 mod (7 - 1), 65535 mod (257 - 1), 5 mod (11 - 1).
    assert_eq!(remainder(&[100], &[7]), [4]);
    assert_eq!(remainder(&[255, 255], &[1, 1]), [255]);
    assert_eq!(remainder(&[5], &[11]), [5]);
    assert_eq!(remainder(&[12], &[7]), [0; 0]);
}
