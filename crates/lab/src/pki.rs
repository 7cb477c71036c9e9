//! The lab's certificates and kubeconfigs. It decides who is who in a lab; what they may do is RBAC's.

use crate::config::API_SERVER;
use crate::{Error, Result};
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A certificate authority: its key and certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

fn failed(what: &str) -> impl Fn(rcgen::Error) -> Error {
    move |error| Error::malformed(format!("certificate of {what}"), error)
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

impl Authority {
    fn create(pki: &Path, name: &str) -> Result<Authority> {
        let key = KeyPair::generate().map_err(failed(name))?;
        let certificate = authority_params(name).self_signed(&key).map_err(failed(name))?.pem();
        write_secret(&pki.join(format!("{name}.key")), &key.serialize_pem())?;
        write_secret(&pki.join(format!("{name}.crt")), &certificate)?;
        Ok(Authority { issuer: Issuer::new(authority_params(name), key), certificate })
    }

    fn open(pki: &Path, name: &str) -> Result<Authority> {
        let read = |file: PathBuf| fs::read_to_string(&file).map_err(Error::io(format!("read {}", file.display())));
        let key = KeyPair::from_pem(&read(pki.join(format!("{name}.key")))?).map_err(failed(name))?;
        let certificate = read(pki.join(format!("{name}.crt")))?;
        Ok(Authority { issuer: Issuer::new(authority_params(name), key), certificate })
    }

    /// A key and certificate for a client of this name and groups, or a server of these names.
    fn issue(&self, name: &str, groups: &[&str], servers: &[&str]) -> Result<(String, String)> {
        let names: Vec<String> = servers.iter().map(|s| s.to_string()).collect();
        let mut params = CertificateParams::new(names).map_err(failed(name))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        // One value per kind of attribute is all the encoder takes; the second kind is the same attribute by number.
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        if groups.len() > kinds.len() {
            return Err(Error::Usage(format!("user {name}: a certificate carries at most {} groups", kinds.len())));
        }
        for (kind, group) in kinds.into_iter().zip(groups) {
            params.distinguished_name.push(kind, *group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !servers.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate().map_err(failed(name))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(name))?;
        Ok((key.serialize_pem(), certificate.pem()))
    }
}

/// Writes all certificates, keys and kubeconfigs that the lab's components need into `DIR/pki` and `DIR`.
pub(crate) fn create(dir: &Path, node: &str) -> Result<()> {
    let pki = dir.join("pki");
    fs::create_dir_all(&pki).map_err(Error::io(format!("create {}", pki.display())))?;
    let ca = Authority::create(&pki, "ca")?;
    let front = Authority::create(&pki, "front-proxy-ca")?;

    let store = |file: &str, (key, certificate): (String, String)| {
        write_secret(&pki.join(format!("{file}.key")), &key)?;
        write_secret(&pki.join(format!("{file}.crt")), &certificate)
    };
    let api_server = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        "10.244.0.1",
    ];
    store("apiserver", ca.issue("kube-apiserver", &[], &api_server)?)?;
    store("kubelet", ca.issue("kubelet", &[], &[node, "10.244.0.1", "127.0.0.1"])?)?;
    store("metrics-server", ca.issue("metrics-server", &[], &["metrics-server.kube-system.svc", "10.244.0.1"])?)?;
    store("apiserver-kubelet", ca.issue("kube-apiserver-kubelet", &["system:masters"], &[])?)?;
    store("front-proxy", front.issue("front-proxy", &[], &[])?)?;
    let accounts = KeyPair::generate().map_err(failed("service accounts"))?;
    write_secret(&pki.join("service-accounts.key"), &accounts.serialize_pem())?;
    write_secret(&pki.join("service-accounts.pub"), &accounts.public_key_pem())?;

    let node_user = format!("system:node:{node}");
    let users: [(&str, &str, &[&str]); 8] = [
        ("admin", "lab-admin", &["system:masters"]),
        ("kube-controller-manager", "system:kube-controller-manager", &[]),
        ("kube-scheduler", "system:kube-scheduler", &[]),
        ("kube-proxy", "system:kube-proxy", &[]),
        ("kubelet", &node_user, &["system:nodes"]),
        ("traefik", "lab:traefik", &[]),
        ("prometheus", "lab:prometheus", &[]),
        ("metrics-server", "lab:metrics-server", &[]),
    ];
    for (file, user, groups) in users {
        write_kubeconfig(&dir.join(format!("{file}.kubeconfig")), &ca, user, groups)?;
    }
    Ok(())
}

/// See [`crate::Lab::kubeconfig_for`].
pub(crate) fn kubeconfig_for(dir: &Path, user: &str, groups: &[&str]) -> Result<PathBuf> {
    let ca = Authority::open(&dir.join("pki"), "ca")?;
    let plain: String = user.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let file = dir.join(format!("user-{plain}.kubeconfig"));
    write_kubeconfig(&file, &ca, user, groups)?;
    Ok(file)
}

fn write_kubeconfig(file: &Path, ca: &Authority, user: &str, groups: &[&str]) -> Result<()> {
    let (key, certificate) = ca.issue(user, groups, &[])?;
    write_secret(file, &kubeconfig(user, &ca.certificate, &certificate, &key))
}

/// A kubeconfig, in the JSON that is YAML as well.
fn kubeconfig(user: &str, ca: &str, certificate: &str, key: &str) -> String {
    let data = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": API_SERVER, "certificate-authority-data": data(ca)}}],
        "users": [{"name": user, "user": {"client-certificate-data": data(certificate), "client-key-data": data(key)}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    });
    format!("{config:#}\n")
}

/// Writes a file that only its owner reads, from its first byte on.
fn write_secret(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let shown = file.display().to_string();
    let mut options = fs::OpenOptions::new();
    let mut opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .map_err(Error::io(format!("create {shown}")))?;
    opened.write_all(text.as_bytes()).map_err(Error::io(format!("write {shown}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_user_minted_later_is_signed_by_the_labs_own_authority() {
        let dir = std::env::temp_dir().join(format!("lab-pki-{}", std::process::id()));
        create(&dir, "lab").unwrap();
        let file = kubeconfig_for(&dir, "joe:x", &["dev", "ops"]).unwrap();
        assert!(file.ends_with("user-joe_x.kubeconfig"));
        let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let encoded = config.pointer("/clusters/0/cluster/certificate-authority-data").unwrap().as_str().unwrap();
        let ca = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
        assert_eq!(ca, fs::read(dir.join("pki/ca.crt")).unwrap());
        assert_eq!(config.pointer("/users/0/name").unwrap(), "joe:x");
        assert_eq!(kubeconfig_for(&dir, "joe", &["a", "b", "c"]).unwrap_err().category(), "usage");
        fs::remove_dir_all(dir).unwrap();
    }
}
