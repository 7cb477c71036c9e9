//! Signatures in the format of OpenSSH (`ssh-keygen -Y sign`): of a list of digests, by a key, for this purpose alone.
//! It reads no file; who may sign is said by a list of allowed signers.

use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

/// What a signature is for: one that was made for something else does not count.
pub const NAMESPACE: &str = "canaryrelease.dev/evidence";

/// Signs a text with a private key as OpenSSH stores it.
///
/// # Errors
/// Where the key can't be read, has a passphrase, or is of a kind that can't sign here.
pub fn sign(key: &str, text: &[u8]) -> Result<String, String> {
    let key = PrivateKey::from_openssh(key).map_err(|error| format!("no private key of OpenSSH: {error}"))?;
    if key.is_encrypted() {
        return Err(format!("the key has a passphrase; sign with ssh-keygen -Y sign -n {NAMESPACE}"));
    }
    let signed = key.sign(NAMESPACE, HashAlg::Sha512, text);
    let signed = signed.map_err(|error| {
        format!("this key can't sign here ({error}); use one of type ed25519, or ssh-keygen -Y sign -n {NAMESPACE}")
    })?;
    signed.to_pem(LineEnding::LF).map_err(|error| error.to_string())
}

/// Who signed a text, by a list of allowed signers.
///
/// # Errors
/// Where the signature is of nobody on the list, of another text or purpose, or can't be read; why.
pub fn verify(signature: &str, text: &[u8], signers: &str) -> Result<String, String> {
    let signature = SshSig::from_pem(signature).map_err(|error| format!("the signature can't be read: {error}"))?;
    let known = allowed(signers)?;
    let signer = known.iter().find(|(_, key)| key.key_data() == signature.public_key());
    let Some((name, key)) = signer else {
        let of = signature.public_key().fingerprint(HashAlg::Sha256);
        return Err(format!("signed by key {of}, which is not among the signers"));
    };
    key.verify(NAMESPACE, text, &signature)
        .map_err(|_| format!("the signature of {name} is not of this list of files, or for another purpose"))?;
    Ok(name.clone())
}

/// Names and keys of a file of allowed signers. Restrictions are not understood, so a line that has some is refused.
fn allowed(signers: &str) -> Result<Vec<(String, PublicKey)>, String> {
    let mut known = Vec::new();
    for (number, line) in (1..).zip(signers.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {number} of the signers: {why}");
        let (name, key) = line.split_once(char::is_whitespace).ok_or_else(|| wrong("write a name and a public key"))?;
        let key = PublicKey::from_openssh(key.trim_start())
            .map_err(|_| wrong("no public key after the name; options of a line are not supported"))?;
        known.push((name.to_owned(), key));
    }
    if known.is_empty() {
        return Err("nobody may sign: the file of signers is empty".to_owned());
    }
    Ok(known)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A key with a passphrase, without the lines around it.
    const ENCRYPTED: &str = include_str!("../tests/keys/encrypted.base64");
    /// `ssh-keygen -Y sign -n canaryrelease.dev/evidence` of `text\n`, by key 7.
    const BY_SSH_KEYGEN: &str = include_str!("../tests/keys/text.sig");

    fn pair(seed: u8) -> PrivateKey {
        ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]).into()
    }

    /// A private key that opens nothing.
    pub(crate) fn private(seed: u8) -> String {
        pair(seed).to_openssh(LineEnding::LF).unwrap().to_string()
    }

    pub(crate) fn public(seed: u8) -> String {
        pair(seed).public_key().to_openssh().unwrap()
    }

    fn signers(keys: &[(&str, u8)]) -> String {
        keys.iter().map(|(name, seed)| format!("{name} {}\n", public(*seed))).collect()
    }

    #[test]
    fn a_signature_counts_for_its_text_and_its_signer() {
        let signed = sign(&private(7), b"text\n").unwrap();
        let known = format!("# who may\n\n{}", signers(&[("two@example.com", 8), ("one@example.com", 7)]));
        assert_eq!(verify(&signed, b"text\n", &known), Ok("one@example.com".to_owned()));
        assert!(verify(&signed, b"other\n", &known).unwrap_err().contains("not of this list"));
        let stranger = verify(&signed, b"text\n", &signers(&[("two@example.com", 8)])).unwrap_err();
        assert!(stranger.contains("SHA256:") && stranger.contains("not among"), "{stranger}");
    }

    #[test]
    fn it_is_the_signature_of_ssh_keygen() {
        let known = signers(&[("one", 7)]);
        assert_eq!(verify(BY_SSH_KEYGEN, b"text\n", &known), Ok("one".to_owned()));
    }

    #[test]
    fn a_signature_for_another_purpose_does_not_count() {
        let key = pair(7);
        let signed = key.sign("git", HashAlg::Sha512, b"text\n").unwrap().to_pem(LineEnding::LF).unwrap();
        assert!(verify(&signed, b"text\n", &signers(&[("one", 7)])).unwrap_err().contains("another purpose"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        let encrypted = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{ENCRYPTED}-----END OPENSSH PRIVATE KEY-----\n");
        assert!(sign(&encrypted, b"x").unwrap_err().contains("ssh-keygen -Y sign"));
        assert!(sign("no key", b"x").unwrap_err().contains("no private key"));
        let signed = sign(&private(7), b"x").unwrap();
        assert!(verify("no signature", b"x", &signers(&[("one", 7)])).unwrap_err().contains("can't be read"));
        assert!(verify(&signed, b"x", "# nobody\n").unwrap_err().contains("nobody"));
        let restricted = format!("one namespaces=\"git\" {}", public(7));
        assert!(verify(&signed, b"x", &restricted).unwrap_err().contains("line 1"));
    }
}
