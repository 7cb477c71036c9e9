//! A signing key stays where it is: whatever becomes of it, nothing of it is said or written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod folder;

use std::path::Path;
use std::process::{Command, Output};

use ssh_key::{LineEnding, PrivateKey, private::Ed25519Keypair};

use folder::Folder;

const RECORD: &str = include_str!("../../canary-report/tests/records/rolled-back.yaml");

fn canary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-canary")).args(arguments).output().unwrap()
}

/// No line of the key is in it.
fn keeps(key: &str, what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in key.lines().filter(|line| line.len() > 16 && !line.starts_with("-----")) {
        assert!(!text.contains(line), "{line} is in {what}: {text}");
    }
}

fn said(output: &Output) -> Vec<u8> {
    [output.stdout.as_slice(), output.stderr.as_slice()].concat()
}

#[test]
fn nothing_of_a_signing_key_is_said_or_written() {
    let folder = Folder::new("secrets");
    let path = |name: &str| folder.path(name);
    std::fs::write(path("record.yaml"), RECORD).unwrap();
    let evidence = canary(&["evidence", "-f", &path("record.yaml"), "-d", &path("evidence")]);
    assert!(evidence.status.success(), "{evidence:?}");

    let good = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32])).to_openssh(LineEnding::LF).unwrap().to_string();
    // One that is cut, one that has a letter too many, and one that is said to be a key of another kind.
    let cut = good.lines().take(3).collect::<Vec<_>>().join("\n");
    let longer = good.replacen('\n', "\nA", 1);
    let other = good.replace("OPENSSH PRIVATE", "RSA PRIVATE");
    for (name, key) in [("cut", &cut), ("longer", &longer), ("other", &other)] {
        std::fs::write(path(name), key).unwrap();
        let refused = canary(&["sign", "-d", &path("evidence"), "--key", &path(name)]);
        assert!(!refused.status.success(), "{name}: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(&path(name)), "{refused:?}");
        keeps(key, name, &said(&refused));
    }
    std::fs::write(path("key"), &good).unwrap();
    let signed = canary(&["sign", "-d", &path("evidence"), "--key", &path("key"), "-o", "json"]);
    assert!(signed.status.success(), "{signed:?}");
    keeps(&good, "what it says", &said(&signed));
    let files: Vec<_> = std::fs::read_dir(Path::new(&path("evidence"))).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.iter().any(|file| file.ends_with("SHA256SUMS.sig")), "{files:?}");
    for file in files {
        keeps(&good, &file.display().to_string(), &std::fs::read(&file).unwrap());
    }
}
