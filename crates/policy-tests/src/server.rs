//! An API server of one's own: etcd and kube-apiserver on loopback ports that nobody else uses, with state
//! in a temporary directory. No controllers, no nodes: enough for admission. Ends with the value.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    children: Vec<Child>,
    state: PathBuf,
    kubectl: PathBuf,
}

impl ApiServer {
    /// Starts `etcd` and `kube-apiserver` of `binaries`, which also holds `kubectl`, and waits until it answers.
    ///
    /// # Errors
    /// When a program is missing or does not come up within a minute.
    pub fn start(binaries: &Path) -> Result<Self, Error> {
        let state = std::env::temp_dir().join(format!("policy-tests-server-{}", std::process::id()));
        fs::create_dir_all(&state).map_err(Error::io(format!("create {}", state.display())))?;
        let mut server = Self { children: Vec::new(), state, kubectl: binaries.join("kubectl") };
        server.files()?;
        let (client, peer, secure) = (free_port()?, free_port()?, free_port()?);
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        server.spawn(
            &binaries.join("etcd"),
            &[
                "--data-dir=etcd",
                "--unsafe-no-fsync",
                "--log-level=error",
                &format!("--listen-client-urls={client}"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--initial-cluster=default={peer}"),
            ],
        )?;
        server.spawn(
            &binaries.join("kube-apiserver"),
            &[
                &format!("--etcd-servers={client}"),
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                &format!("--secure-port={secure}"),
                "--cert-dir=certificates",
                "--token-auth-file=tokens",
                "--authorization-mode=RBAC",
                "--endpoint-reconciler-type=none",
                "--service-cluster-ip-range=10.96.0.0/24",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-key-file=accounts.pem",
                "--service-account-signing-key-file=accounts.pem",
            ],
        )?;
        server.write_kubeconfig(secure)?;
        server.wait()?;
        Ok(server)
    }

    /// An administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    fn files(&self) -> Result<(), Error> {
        fs::write(self.state.join("tokens"), "policy-tests,admin,1,\"system:masters\"\n")
            .map_err(Error::io("write the tokens"))?;
        let status = Command::new("openssl")
            .args(["genrsa", "-out", "accounts.pem", "2048"])
            .current_dir(&self.state)
            .stderr(Stdio::null())
            .status()
            .map_err(Error::io("run openssl for the key of service accounts"))?;
        if status.success() { Ok(()) } else { Err(Error::Prepare(format!("openssl genrsa: {status}"))) }
    }

    fn spawn(&mut self, program: &Path, args: &[&str]) -> Result<(), Error> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = fs::File::create(self.state.join(format!("{name}.log"))).map_err(Error::io("create a log"))?;
        let child = Command::new(program)
            .args(args)
            .current_dir(&self.state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(Error::io(format!("start {}", program.display())))?;
        self.children.push(child);
        Ok(())
    }

    fn write_kubeconfig(&self, port: u16) -> Result<(), Error> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: local\n\
             clusters: [{{name: local, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: admin, user: {{token: policy-tests}}}}]\n\
             contexts: [{{name: local, context: {{cluster: local, user: admin}}}}]\n"
        );
        fs::write(self.kubeconfig(), text).map_err(Error::io("write the kubeconfig"))
    }

    fn wait(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            let ready = Command::new(&self.kubectl)
                .arg("--kubeconfig")
                .arg(self.kubeconfig())
                .args(["get", "--raw", "/readyz"])
                .output()
                .map_err(Error::io(format!("run {}", self.kubectl.display())))?;
            if ready.status.success() {
                return Ok(());
            }
            for child in &mut self.children {
                if let Ok(Some(status)) = child.try_wait() {
                    let logs = self.state.display();
                    return Err(Error::Prepare(format!("a server ended at once ({status}); see the logs in {logs}")));
                }
            }
            if started.elapsed() > READY_WITHIN {
                return Err(Error::Prepare(format!(
                    "the API server is not ready; see the logs in {}",
                    self.state.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Last started, first ended. What is already gone needs no ending.
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.state);
    }
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::io("find a free port"))?;
    listener.local_addr().map(|address| address.port()).map_err(Error::io("find a free port"))
}
