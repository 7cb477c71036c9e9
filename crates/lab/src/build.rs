//! Builds the lab's programs from pinned Go modules into the cache, once. It decides what is missing,
//! by a hash of the pins, sources and flags of each part; it never replaces a part that is there.
//!
//! The modules of `lab/` are part of this program, so that the cache depends on no checkout.

use crate::{Error, LabOptions, Progress, ProgressState, Result, cache_dir, host};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const KUBERNETES: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=36 \
    -X k8s.io/component-base/version.gitTreeState=clean";
const PLAIN: &str = "-s -w";

/// A Go module under `lab/`, as files.
struct Module {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

const CLUSTER: Module = Module {
    name: "cluster",
    files: &[
        ("go.mod", include_str!("../../../lab/cluster/go.mod")),
        ("go.sum", include_str!("../../../lab/cluster/go.sum")),
    ],
};
const CONTAINERD: Module = Module {
    name: "containerd",
    files: &[
        ("go.mod", include_str!("../../../lab/containerd/go.mod")),
        ("go.sum", include_str!("../../../lab/containerd/go.sum")),
    ],
};
const METRICS: Module = Module {
    name: "metrics",
    files: &[
        ("go.mod", include_str!("../../../lab/metrics/go.mod")),
        ("go.sum", include_str!("../../../lab/metrics/go.sum")),
    ],
};
const PAUSE: Module = Module {
    name: "pause",
    files: &[
        ("go.mod", include_str!("../../../lab/pause/go.mod")),
        ("main.go", include_str!("../../../lab/pause/main.go")),
    ],
};

const STORES: Module = Module {
    name: "stores",
    files: &[
        ("go.mod", include_str!("../../../lab/stores/go.mod")),
        ("go.sum", include_str!("../../../lab/stores/go.sum")),
    ],
};
const REGISTRY: Module = Module {
    name: "registry",
    files: &[
        ("go.mod", include_str!("../../../lab/registry/go.mod")),
        ("go.sum", include_str!("../../../lab/registry/go.sum")),
        ("main.go", include_str!("../../../lab/registry/main.go")),
    ],
};

enum Make {
    /// `go build` of a package: package, tags, linker flags.
    Program { package: &'static str, tags: &'static str, flags: &'static str },
    /// Copies a folder of a module that the lab's module requires: module, folder.
    Folder { module: &'static str, folder: &'static str },
}

struct Part {
    name: &'static str,
    module: &'static Module,
    make: Make,
}

const fn program(
    name: &'static str,
    module: &'static Module,
    package: &'static str,
    tags: &'static str,
    flags: &'static str,
) -> Part {
    Part { name, module, make: Make::Program { package, tags, flags } }
}

const NO_SNAPSHOTTERS: &str = "no_btrfs no_devmapper no_zfs";

/// The part that a lab may do without.
const METRICS_SERVER: &str = "metrics-server";

/// What the lab consists of, in the order of building.
const PARTS: &[Part] = &[
    program("etcd", &CLUSTER, "go.etcd.io/etcd/server/v3", "", PLAIN),
    program("kube-apiserver", &CLUSTER, "k8s.io/kubernetes/cmd/kube-apiserver", "", KUBERNETES),
    program("kubectl", &CLUSTER, "k8s.io/kubernetes/cmd/kubectl", "", KUBERNETES),
    program("kube-controller-manager", &CLUSTER, "k8s.io/kubernetes/cmd/kube-controller-manager", "", KUBERNETES),
    program("kube-scheduler", &CLUSTER, "k8s.io/kubernetes/cmd/kube-scheduler", "", KUBERNETES),
    program("kubelet", &CLUSTER, "k8s.io/kubernetes/cmd/kubelet", "", KUBERNETES),
    program("kube-proxy", &CLUSTER, "k8s.io/kubernetes/cmd/kube-proxy", "", KUBERNETES),
    program("containerd", &CONTAINERD, "github.com/containerd/containerd/v2/cmd/containerd", NO_SNAPSHOTTERS, PLAIN),
    program(
        "containerd-shim-runc-v2",
        &CONTAINERD,
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        NO_SNAPSHOTTERS,
        PLAIN,
    ),
    program("ctr", &CONTAINERD, "github.com/containerd/containerd/v2/cmd/ctr", NO_SNAPSHOTTERS, PLAIN),
    program("bridge", &CLUSTER, "github.com/containernetworking/plugins/plugins/main/bridge", "", PLAIN),
    program("loopback", &CLUSTER, "github.com/containernetworking/plugins/plugins/main/loopback", "", PLAIN),
    program("host-local", &CLUSTER, "github.com/containernetworking/plugins/plugins/ipam/host-local", "", PLAIN),
    program("traefik", &CLUSTER, "github.com/traefik/traefik/v3/cmd/traefik", "", PLAIN),
    program(
        "prometheus",
        &CLUSTER,
        "github.com/prometheus/prometheus/cmd/prometheus",
        "remove_all_sd,enable_kubernetes_sd",
        PLAIN,
    ),
    program(METRICS_SERVER, &METRICS, "sigs.k8s.io/metrics-server/cmd/metrics-server", "", PLAIN),
    program("pause", &PAUSE, ".", "", PLAIN),
    Part {
        name: "gateway-api",
        module: &CLUSTER,
        make: Make::Folder { module: "sigs.k8s.io/gateway-api", folder: "config/crd/standard" },
    },
];

/// Servers that evidence is tested against. No lab needs them.
const SERVERS: &[Part] = &[
    program("registry", &REGISTRY, ".", "", PLAIN),
    program("versitygw", &STORES, "github.com/versity/versitygw/cmd/versitygw", "", PLAIN),
];

impl Part {
    /// Changes with anything that could change what is built.
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for (file, content) in self.module.files {
            add(file);
            add(content);
        }
        match self.make {
            Make::Program { package, tags, flags } => [package, tags, flags].map(&mut add),
            Make::Folder { module, folder } => [module, folder, ""].map(&mut add),
        };
        hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Where the part is kept: a program, or a folder.
    fn place(&self, cache: &Path) -> PathBuf {
        cache.join("bin").join(format!("{}-{}", self.name, self.key())).join(self.name)
    }
}

/// Where each of the lab's programs is.
#[derive(Debug, Clone)]
pub struct Binaries {
    places: BTreeMap<&'static str, PathBuf>,
}

impl Binaries {
    /// The lab's programs, if all of them are built already. Builds and changes nothing, and needs no root.
    ///
    /// # Errors
    /// If there is no place for a cache.
    pub fn find() -> Result<Option<Binaries>> {
        let cache = cache_dir()?;
        let places: BTreeMap<_, _> = PARTS.iter().map(|part| (part.name, part.place(&cache))).collect();
        Ok(places.values().all(|place| place.exists()).then_some(Binaries { places }))
    }

    /// Path of a program, for example `kubectl`, or of the folder `gateway-api` with its CRDs.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.places.get(name).map(PathBuf::as_path)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.places.iter().map(|(name, path)| (*name, path.as_path()))
    }
}

/// Builds what is missing of what such a lab needs into the cache and says where everything is. From an empty cache
/// this takes about 14 minutes on two cores, somewhat less without metrics-server; with a full one, no time. Two builds
/// at once wait for each other.
///
/// # Errors
/// [`Error::Host`] if the lab cannot run here or Go is missing, [`Error::Build`] with the compiler's words.
pub fn build(options: &LabOptions, progress: &mut dyn FnMut(&Progress)) -> Result<Binaries> {
    host::check_host()?;
    let needed = |part: &&Part| options.metrics_server || part.name != METRICS_SERVER;
    build_parts(&PARTS.iter().filter(needed).collect::<Vec<_>>(), progress)
}

/// Builds what is missing of two servers, a container registry (`registry`) and an S3-compatible store (`versitygw`). It
/// needs Go, but neither root nor a lab. From an empty cache it takes about 3 minutes on two cores.
///
/// # Errors
/// [`Error::Host`] if Go is missing, [`Error::Build`] with the compiler's words.
pub fn build_servers(progress: &mut dyn FnMut(&Progress)) -> Result<Binaries> {
    build_parts(&SERVERS.iter().collect::<Vec<_>>(), progress)
}

fn build_parts(parts: &[&'static Part], progress: &mut dyn FnMut(&Progress)) -> Result<Binaries> {
    let cache = cache_dir()?;
    let bin = cache.join("bin");
    fs::create_dir_all(&bin).map_err(Error::io(format!("create {}", bin.display())))?;
    let lock = cache.join("build.lock");
    let lock = fs::File::create(&lock).map_err(Error::io(format!("create {}", lock.display())))?;
    lock.lock().map_err(Error::io("wait for another build of the lab"))?;

    let mut places = BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        let mut tell = |state| {
            progress(&Progress { name: part.name.into(), number: index + 1, of: parts.len(), state });
        };
        let place = part.place(&cache);
        if place.exists() {
            tell(ProgressState::Present);
        } else {
            tell(ProgressState::Begun);
            let began = Instant::now();
            make(part, &cache, &place)?;
            tell(ProgressState::Done(began.elapsed()));
        }
        places.insert(part.name, place);
    }
    Ok(Binaries { places })
}

fn make(part: &Part, cache: &Path, place: &Path) -> Result<()> {
    let go = host::find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()));
    let Some(go) = go else {
        return Err(Error::Host("the lab is built with Go 1.26 or newer: install it and put `go` on the PATH".into()));
    };
    let source = cache.join("src").join(format!("{}-{}", part.module.name, part.key()));
    fs::create_dir_all(&source).map_err(Error::io(format!("create {}", source.display())))?;
    for (name, content) in part.module.files {
        let file = source.join(name);
        fs::write(&file, content).map_err(Error::io(format!("write {}", file.display())))?;
    }
    // What is half made has a name of its own and never counts as made.
    let unfinished = cache.join("bin").join(format!(".{}-{}", part.name, std::process::id()));
    match part.make {
        Make::Program { package, tags, flags } => {
            let mut build = tool(&go, &source);
            build.args(["build", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", flags, "-o"]);
            finish(part, build.arg(&unfinished).arg(package))?;
        }
        Make::Folder { module, folder } => {
            finish(part, tool(&go, &source).args(["mod", "download", module]))?;
            let found = finish(part, tool(&go, &source).args(["list", "-m", "-f", "{{.Dir}}", module]))?;
            copy_folder(&Path::new(found.trim()).join(folder), &unfinished)?;
        }
    }
    let home = place.parent().unwrap_or(cache);
    fs::create_dir_all(home).map_err(Error::io(format!("create {}", home.display())))?;
    fs::rename(&unfinished, place).map_err(Error::io(format!("move to {}", place.display())))?;
    fs::remove_dir_all(&source).map_err(Error::io(format!("remove {}", source.display())))
}

fn tool(go: &Path, dir: &Path) -> Command {
    let mut command = Command::new(go);
    // Our flags only: someone's GOFLAGS or workspace must not change what the hash stands for.
    command.current_dir(dir).env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOWORK", "off");
    command.stdin(Stdio::null());
    command
}

fn finish(part: &Part, command: &mut Command) -> Result<String> {
    crate::run(command, None).map_err(|error| {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        Error::Build { part: part.name.into(), reason: tail }
    })
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).map_err(Error::io(format!("remove {}", to.display())))?;
    }
    fs::create_dir_all(to).map_err(Error::io(format!("create {}", to.display())))?;
    let read = Error::io(format!("read {}", from.display()));
    for entry in fs::read_dir(from).map_err(read)?.flatten() {
        let text = fs::read(entry.path()).map_err(Error::io(format!("read {}", entry.path().display())))?;
        let file = to.join(entry.file_name());
        fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_part_has_a_place_of_its_own_that_changes_with_its_flags() {
        let places: BTreeSet<PathBuf> =
            PARTS.iter().chain(SERVERS).map(|part| part.place(Path::new("/cache"))).collect();
        assert_eq!(places.len(), PARTS.len() + SERVERS.len());
        let one = program("x", &PAUSE, ".", "", PLAIN);
        let other = program("x", &PAUSE, ".", "", KUBERNETES);
        assert_ne!(one.key(), other.key());
        assert_eq!(one.key(), program("x", &PAUSE, ".", "", PLAIN).key());
    }
}
