//! Where evidence is kept: folders of files below a folder or a prefix of a bucket, one for each release. A folder
//! is finished once its list of digests is there, which is written last; a finished one is never changed.
//!
//! Folder and bucket are stores of the crate `object_store`. A crate that only signs S3 requests would add as many crates
//! to the tree (14 against 16) and would leave retries, paging, conditional writes and the roles of cloud pods to us.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canary_report::evidence::{MANIFEST, SUMS, sha256, sums};
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    RetryConfig,
};

use crate::{Error, clean};

/// Files that a folder may have, before something else must be wrong with it.
const MOST_FILES: usize = 1000;
/// Bytes of a list of digests or a record that are read.
const MOST_BYTES: u64 = 1024 * 1024;
/// How long one request to a bucket may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Ways to say who one is, of which one must be there: the service that answers on every machine of a cloud is not asked.
const WAYS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// A folder or bucket that holds evidence.
pub struct Place {
    store: Arc<dyn ObjectStore>,
    /// Below which folders are kept.
    prefix: Path,
    /// Where it is a folder of this machine.
    root: Option<PathBuf>,
    /// As people named it.
    pub name: String,
}

/// What a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing finished is there.
    Open,
    /// It is finished; the record that it was written from, and whether that is as the list says.
    Finished {
        /// The text of `record.yaml`; empty where it is not there.
        record: String,
        /// Whether its digest is the one in the list.
        sound: bool,
    },
}

impl Place {
    /// `s3://BUCKET/PREFIX`, or a folder, which is made where it is not there. Sends nothing yet.
    ///
    /// # Errors
    /// Where it is neither, or nothing says who one is.
    pub fn open(to: &str, endpoint: Option<&str>) -> Result<Self, Error> {
        let fail = |why: String| Error::Place { place: clean::text(to), why: clean::text(&why) };
        let Some(rest) = to.strip_prefix("s3://") else {
            if to.contains("://") {
                return Err(Error::Usage(format!("{} is neither a folder nor s3://BUCKET/PREFIX", clean::text(to))));
            }
            std::fs::create_dir_all(to).map_err(|why| Error::Unwritable { file: clean::text(to), why })?;
            let store = LocalFileSystem::new_with_prefix(to).map_err(|error| fail(error.to_string()))?;
            return Ok(Self {
                store: Arc::new(store.with_fsync(true)),
                prefix: Path::default(),
                root: Some(to.into()),
                name: to.to_owned(),
            });
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| fail(error.to_string()))?;
        if bucket.is_empty() {
            return Err(Error::Usage("give a bucket, such as s3://evidence/production".to_owned()));
        }
        if !WAYS.iter().any(|way| std::env::var_os(way).is_some_and(|value| !value.is_empty())) {
            return Err(fail(format!(
                "nothing says who may write there; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or one of {}",
                WAYS.get(1..).unwrap_or_default().join(", ")
            )));
        }
        let store = bucket_store(bucket, endpoint).map_err(|error| fail(with_causes(&error)))?;
        Ok(Self { store, prefix, root: None, name: to.to_owned() })
    }

    /// Of a store that is there already, for tests.
    #[cfg(test)]
    pub(crate) fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, prefix: Path::default(), root: None, name: "memory".to_owned() }
    }

    fn at(&self, folder: &str, file: &str) -> Path {
        let folders = folder.split('/').filter(|part| !part.is_empty());
        folders.chain([file]).fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn wrong(&self, folder: &str, error: &object_store::Error) -> Error {
        let text = with_causes(error);
        Error::Place { place: clean::text(&format!("{}, {folder}", self.name)), why: clean::text(&text) }
    }

    async fn read(&self, folder: &str, file: &str) -> Result<Option<String>, Error> {
        let wrong = |error| self.wrong(folder, &error);
        let got = match self.store.get(&self.at(folder, file)).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(wrong(error)),
        };
        if got.meta.size > MOST_BYTES {
            let why = format!("{file} is larger than {MOST_BYTES} bytes; it is not ours");
            return Err(Error::Place { place: clean::text(&format!("{}, {folder}", self.name)), why });
        }
        let bytes = got.bytes().await.map_err(wrong)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// What a folder is.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn state(&self, folder: &str) -> Result<State, Error> {
        let Some(list) = self.read(folder, SUMS).await? else { return Ok(State::Open) };
        let record = self.read(folder, "record.yaml").await?.unwrap_or_default();
        let row = format!("{}  record.yaml", sha256(record.as_bytes()));
        Ok(State::Finished { sound: list.lines().any(|line| line == row), record })
    }

    /// Writes a folder that is not finished, its list of digests last. Returns the digest of the set; none where somebody
    /// else finished it meanwhile.
    ///
    /// # Errors
    /// Where it can't be written, or holds what is not of an evidence folder.
    pub async fn write(&self, folder: &str, files: &[(String, String)]) -> Result<Option<String>, Error> {
        let wrong = |error| self.wrong(folder, &error);
        self.clear(folder, files).await?;
        // The manifest comes first: by it an unfinished folder is known as ours.
        let (first, others): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| name == MANIFEST);
        for (name, text) in first.into_iter().chain(others) {
            let payload = PutPayload::from(text.clone().into_bytes());
            self.store.put(&self.at(folder, name), payload).await.map_err(wrong)?;
        }
        let list = sums(files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
        let at = self.at(folder, SUMS);
        let payload = PutPayload::from(list.clone().into_bytes());
        let create = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&at, payload.clone(), create).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(None),
            // Some stores can't write on a condition.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.store.put(&at, payload).await.map_err(wrong)?;
            }
            Err(error) => return Err(wrong(error)),
        }
        Ok(Some(sha256(list.as_bytes())))
    }

    /// Takes away files that were begun and have their names not yet, `NAME#1`: the store does not list them.
    fn sweep(&self, folder: &str) -> Result<(), Error> {
        let Some(root) = &self.root else { return Ok(()) };
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let begun = name.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
            if begun && path.is_file() {
                std::fs::remove_file(&path)
                    .map_err(|why| Error::Unwritable { file: clean::text(&path.display().to_string()), why })?;
            }
        }
        Ok(())
    }

    /// Takes away what an attempt that was broken off left, and this one will not write anew.
    async fn clear(&self, folder: &str, files: &[(String, String)]) -> Result<(), Error> {
        self.sweep(folder)?;
        let wrong = |error| self.wrong(folder, &error);
        let below =
            folder.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |path, part| path.join(part));
        let mut left = Vec::new();
        let mut ours = false;
        let mut found = self.store.list(Some(&below));
        while let Some(one) = found.try_next().await.map_err(wrong)? {
            let name = one.location.filename().unwrap_or_default();
            ours |= name == MANIFEST;
            let direct = |file: &str| self.at(folder, file) == one.location;
            // Whoever finished it meanwhile keeps it.
            if !direct(SUMS) && !files.iter().any(|(file, _)| direct(file)) {
                left.push(one.location);
            }
            if left.len() > MOST_FILES {
                break;
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        if !ours || left.len() > MOST_FILES {
            let first = left.first().map(ToString::to_string).unwrap_or_default();
            return Err(Error::Place {
                place: clean::text(&format!("{}, {folder}", self.name)),
                why: clean::text(&format!(
                    "it holds what is not of an evidence folder, such as {first}; move that away"
                )),
            });
        }
        for location in left {
            self.store.delete(&location).await.map_err(wrong)?;
        }
        Ok(())
    }
}

/// What went wrong, and what that came from.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = deeper.source();
    }
    text
}

fn bucket_store(bucket: &str, endpoint: Option<&str>) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    // An error means that a provider is there already, which is what we want.
    let _present = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
        builder = builder.with_region("us-east-1");
    }
    // What the environment says of proxies and the like stays.
    builder = builder
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), format!("{}s", DEADLINE.as_secs()))
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), "10s");
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
        if endpoint.starts_with("http://") {
            // Without TLS no certificate of the system is needed; an image may have none.
            let options = ClientOptions::new().with_allow_http(true).with_no_system_certificates(true);
            builder = builder
                .with_client_options(options.with_timeout(DEADLINE).with_connect_timeout(Duration::from_secs(10)));
        }
    }
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(200), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 4, retry_timeout: DEADLINE };
    Ok(Arc::new(builder.with_retry(retry).build()?))
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
