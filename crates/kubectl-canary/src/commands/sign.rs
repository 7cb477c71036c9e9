//! `sign` and `verify`: whether an evidence folder is as it was, and who says so. What is signed is its list of digests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use canary_report::evidence::{SUMS, differences, sha256};
use serde::Serialize;

use crate::output::{Output, Tone};
use crate::{Error, Exit, args, clean, signature};

/// The signature's file.
const SIGNATURE: &str = "SHA256SUMS.sig";
/// Bytes of a file that are read at most.
const MOST: u64 = 64 * 1024 * 1024;

/// What a folder is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The folder.
    pub folder: String,
    /// The digest of the set.
    pub digest: String,
    /// Who signed it; none where nobody did who may.
    pub signer: Option<String>,
    /// What is wrong with it.
    pub wrong: Vec<String>,
}

/// Runs `sign`.
///
/// # Errors
/// Where folder or key cannot be read, the folder is not what its list says, or it is signed already.
pub fn sign(what: &args::Sign, output: &Output) -> Result<Exit, Error> {
    let files = read(&what.folder)?;
    let place = what.folder.display().to_string();
    let wrong = wrong(&files);
    if !wrong.is_empty() {
        return Err(Error::Key { file: place, why: format!("is not signed: {}", wrong.join("; ")) });
    }
    let sums = files.get(SUMS).map(Vec::as_slice).unwrap_or_default();
    let unreadable = |why| Error::Unreadable { file: what.key.display().to_string(), why };
    let key = fs::read_to_string(&what.key).map_err(unreadable)?;
    let signed = signature::sign(&key, sums)
        .map_err(|why| Error::Key { file: what.key.display().to_string(), why: clean::text(&why) })?;
    let path = what.folder.join(SIGNATURE);
    let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(signed.as_bytes()));
    written.map_err(|why| Error::Unwritable { file: path.display().to_string(), why })?;
    let digest = format!("sha256:{}", sha256(sums));
    let answer = Answer { folder: place, digest: digest.clone(), signer: None, wrong };
    output.answer(&answer, |paint| {
        format!("{} {}\ndigest of the set: {digest}", paint.paint(Tone::Good, "wrote"), path.display())
    })?;
    Ok(Exit::Done)
}

/// Runs `verify`.
///
/// # Errors
/// Where folder or signers cannot be read.
pub fn verify(what: &args::Verify, output: &Output) -> Result<Exit, Error> {
    let files = read(&what.folder)?;
    let unreadable = |why| Error::Unreadable { file: what.signers.display().to_string(), why };
    let signers = fs::read_to_string(&what.signers).map_err(unreadable)?;
    let answer = judged(&what.folder, &files, &signers);
    let good = answer.wrong.is_empty();
    output.answer(&answer, |paint| match &answer.signer {
        Some(signer) if good => {
            format!(
                "{} {}, signed by {signer}\ndigest of the set: {}",
                paint.paint(Tone::Good, "unchanged"),
                answer.folder,
                answer.digest
            )
        }
        _ => format!("{} {}: {}", paint.paint(Tone::Bad, "not good"), answer.folder, answer.wrong.join("; ")),
    })?;
    Ok(if good { Exit::Done } else { Exit::Refused })
}

fn judged(folder: &Path, files: &BTreeMap<String, Vec<u8>>, signers: &str) -> Answer {
    let sums = files.get(SUMS).map(Vec::as_slice).unwrap_or_default();
    let mut wrong = wrong(files);
    let signer = match files.get(SIGNATURE) {
        None => Err(format!("it is not signed: {SIGNATURE} is missing")),
        Some(signed) => signature::verify(&String::from_utf8_lossy(signed), sums, signers),
    };
    if let Err(why) = &signer {
        wrong.push(why.clone());
    }
    Answer {
        folder: clean::text(&folder.display().to_string()),
        digest: format!("sha256:{}", sha256(sums)),
        signer: signer.ok().map(|signer| clean::text(&signer)),
        wrong: wrong.iter().map(|why| clean::text(why)).collect(),
    }
}

/// What of the folder is not as its list says.
fn wrong(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let Some(sums) = files.get(SUMS) else {
        return vec![format!("{SUMS} is missing; kubectl canary evidence writes it")];
    };
    let others = files.iter().filter(|(name, _)| *name != SUMS && *name != SIGNATURE);
    let differences =
        differences(&String::from_utf8_lossy(sums), others.map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    differences.unwrap_or_else(|why| vec![why])
}

/// All files of a folder. Anything else in it, such as a link, has no place there.
fn read(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let fail = |path: &Path, why| Error::Unreadable { file: path.display().to_string(), why };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|why| fail(folder, why))? {
        let path = entry.map_err(|why| fail(folder, why))?.path();
        let plain = fs::symlink_metadata(&path).map_err(|why| fail(&path, why))?.is_file();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut bytes = Vec::new();
        if plain {
            let file = fs::File::open(&path).map_err(|why| fail(&path, why))?;
            file.take(MOST).read_to_end(&mut bytes).map_err(|why| fail(&path, why))?;
        }
        // What is no plain file keeps its name and is told as one too many.
        files.insert(if plain { name } else { format!("{name} (no plain file)") }, bytes);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::tests::{private, public};
    use canary_report::evidence::sums;

    fn signed() -> BTreeMap<String, Vec<u8>> {
        let files = [("a.txt", b"one".as_slice()), ("b.txt", b"two")];
        let list = sums(files);
        let mut all: BTreeMap<String, Vec<u8>> =
            files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        all.insert(SIGNATURE.to_owned(), signature::sign(&private(7), list.as_bytes()).unwrap().into_bytes());
        all.insert(SUMS.to_owned(), list.into_bytes());
        all
    }

    fn said(files: &BTreeMap<String, Vec<u8>>) -> Answer {
        judged(Path::new("evidence"), files, &format!("jane {}", public(7)))
    }

    #[test]
    fn a_folder_is_good_as_long_as_nothing_of_it_changes() {
        let answer = said(&signed());
        assert_eq!((answer.signer.as_deref(), answer.wrong.len()), (Some("jane"), 0));
        for (name, bytes, says) in [
            ("a.txt", Some(b"1".as_slice()), "a.txt was changed"),
            ("a.txt", None, "a.txt is missing"),
            ("c.txt", Some(b"three".as_slice()), "c.txt is not listed"),
            (SIGNATURE, None, "not signed"),
            (SIGNATURE, Some(b"x".as_slice()), "can't be read"),
            (SUMS, None, "SHA256SUMS is missing"),
        ] {
            let mut files = signed();
            match bytes {
                Some(bytes) => files.insert(name.to_owned(), bytes.to_vec()),
                None => files.remove(name),
            };
            let answer = said(&files);
            assert!(answer.wrong.iter().any(|why| why.contains(says)), "{name}: {:?}", answer.wrong);
        }
    }

    #[test]
    fn a_list_that_was_written_anew_has_no_signature() {
        let mut files = signed();
        files.insert("a.txt".to_owned(), b"1".to_vec());
        let list = sums([("a.txt", b"1".as_slice()), ("b.txt", b"two")]);
        files.insert(SUMS.to_owned(), list.into_bytes());
        let answer = said(&files);
        assert!(answer.signer.is_none() && answer.wrong[0].contains("not of this list"), "{:?}", answer.wrong);
    }
}
