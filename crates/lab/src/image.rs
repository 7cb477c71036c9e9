//! Container images without a registry: an archive with one layer, made of files of this machine. It
//! decides what an image holds and how it is laid out; it hands it to nobody.

use crate::{Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of this machine that goes into an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Where it is on this machine.
    pub from: PathBuf,
    /// Absolute path in the image.
    pub to: PathBuf,
}

/// What an image holds. Besides its files every image has `/tmp` and users `root` and `nonroot` (65532),
/// and runs as `nonroot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its files.
    pub files: Vec<File>,
    /// Program and leading arguments of a container.
    pub entrypoint: Vec<String>,
}

impl Image {
    /// An image of programs of this machine and the libraries they load: each stands under its own
    /// name in the root directory, and the first is the entry point.
    ///
    /// # Errors
    /// If a program or one of its libraries is not there.
    pub fn programs(programs: &[&Path]) -> Result<Image> {
        let mut files = BTreeSet::new();
        let mut entrypoint = None;
        for program in programs {
            let from = fs::canonicalize(program).map_err(Error::io(format!("find {}", program.display())))?;
            let name = from.file_name().map(PathBuf::from).unwrap_or_default();
            let to = Path::new("/").join(name);
            entrypoint.get_or_insert_with(|| to.display().to_string());
            files.extend(libraries(&from)?.into_iter().map(|library| File { from: library.clone(), to: library }));
            files.insert(File { from, to });
        }
        Ok(Image { files: files.into_iter().collect(), entrypoint: entrypoint.into_iter().collect() })
    }

    /// An image of one program: see [`Image::programs`].
    ///
    /// # Errors
    /// If the program or one of its libraries is not there.
    pub fn program(program: impl AsRef<Path>) -> Result<Image> {
        Image::programs(&[program.as_ref()])
    }

    /// Writes the image as an archive that containerd imports under the tag.
    ///
    /// # Errors
    /// If a file of the image cannot be read, or the archive cannot be written.
    pub fn write(&self, tag: &str, archive: &Path) -> Result<()> {
        let layer = self.layer().map_err(Error::io(format!("put image {tag} together")))?;
        let (manifest, config) = self.describe(tag, &layer);
        let pack = || -> std::io::Result<()> {
            let mut tar = tar::Builder::new(fs::File::create(archive)?);
            for (name, content) in
                [("manifest.json", manifest.as_bytes()), ("config.json", config.as_bytes()), ("layer.tar", &layer)]
            {
                append(&mut tar, Path::new(name), 0o644, content)?;
            }
            tar.into_inner()?.sync_data()
        };
        pack().map_err(Error::io(format!("write {}", archive.display())))
    }

    fn describe(&self, tag: &str, layer: &[u8]) -> (String, String) {
        let digest: String = Sha256::digest(layer).iter().map(|byte| format!("{byte:02x}")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]);
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "User": "65532:65532", "WorkingDir": "/", "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        (manifest.to_string(), config.to_string())
    }

    /// The only layer. The same files give the same bytes, whenever it is made.
    fn layer(&self) -> std::io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut directories: BTreeMap<PathBuf, u32> = BTreeMap::new();
        directories.insert("tmp".into(), 0o1777);
        directories.insert("etc".into(), 0o755);
        let inside = |path: &Path| path.strip_prefix("/").map(Path::to_owned).unwrap_or_else(|_| path.to_owned());
        for file in &self.files {
            for parent in inside(&file.to).ancestors().skip(1).filter(|parent| *parent != Path::new("")) {
                directories.entry(parent.to_owned()).or_insert(0o755);
            }
        }
        for (directory, mode) in directories {
            let mut header = header(mode, 0);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, directory, std::io::empty())?;
        }
        let users = "root:x:0:0:root:/:/\nnonroot:x:65532:65532:nonroot:/:/\n";
        append(&mut tar, Path::new("etc/passwd"), 0o644, users.as_bytes())?;
        append(&mut tar, Path::new("etc/group"), 0o644, b"root:x:0:\nnonroot:x:65532:\n")?;
        for file in &self.files {
            let named = |error: std::io::Error| std::io::Error::other(format!("{}: {error}", file.from.display()));
            let content = fs::read(&file.from).map_err(named)?;
            let mode = fs::metadata(&file.from).map_err(named)?.permissions().mode() & 0o755;
            append(&mut tar, &inside(&file.to), mode, &content)?;
        }
        tar.into_inner()
    }
}

fn header(mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut header = header(mode, content.len());
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, path, content)
}

/// The libraries and the loader of a program; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let doing = format!("list the libraries of {}", program.display());
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().map_err(Error::io(&*doing))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_ldd(&text).map_err(|library| Error::malformed(doing, format!("{library} is not on this machine")))
}

/// Reads what `ldd` prints: `libc.so.6 => /lib/.../libc.so.6 (0x...)` and `/lib64/ld-linux... (0x...)`.
/// The error is the name of a library that it did not find.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "=>", "not", "found", ..] => return Err((*name).to_owned()),
            [_, "=>", path, ..] | [path, _] if path.starts_with('/') => found.push(PathBuf::from(path)),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    #[test]
    fn libraries_and_the_loader_go_along_and_a_missing_one_is_named() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected =
            ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_ldd(text).unwrap(), expected.map(PathBuf::from));
        assert!(parse_ldd("\tstatically linked\n").unwrap().is_empty());
        assert_eq!(parse_ldd("\tlibodd.so => not found\n").unwrap_err(), "libodd.so");
    }

    #[test]
    fn an_archive_names_its_layer_by_the_hash_of_its_content() {
        let dir = std::env::temp_dir().join(format!("lab-image-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("app"), "program").unwrap();
        let image = Image {
            files: vec![File { from: dir.join("app"), to: "/opt/bin/app".into() }],
            entrypoint: vec!["/opt/bin/app".into()],
        };
        let archive = dir.join("image.tar");
        image.write("docker.io/lab/app:1", &archive).unwrap();

        let mut parts = BTreeMap::new();
        for entry in tar::Archive::new(fs::File::open(&archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            parts.insert(entry.path().unwrap().display().to_string(), content);
        }
        let json = |name: &str| serde_json::from_slice::<serde_json::Value>(parts.get(name).unwrap()).unwrap();
        assert_eq!(json("manifest.json").pointer("/0/RepoTags/0").unwrap(), "docker.io/lab/app:1");
        let layer = parts.get("layer.tar").unwrap();
        let digest: String = Sha256::digest(layer).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(*json("config.json").pointer("/rootfs/diff_ids/0").unwrap(), format!("sha256:{digest}"));
        assert_eq!(json("config.json").pointer("/config/User").unwrap(), "65532:65532");

        let mut layer = tar::Archive::new(layer.as_slice());
        let names: Vec<String> =
            layer.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["etc", "opt", "opt/bin", "tmp", "etc/passwd", "etc/group", "opt/bin/app"]);
        assert_eq!(image.layer().unwrap(), image.layer().unwrap());
        fs::remove_dir_all(dir).unwrap();
    }
}
