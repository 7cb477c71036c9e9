//! Runs the policy rows: `policy-tests --kubeconfig FILE [--kubectl FILE]` against a cluster, or
//! `policy-tests --binaries DIRECTORY` against an API server of its own, made of the etcd, kube-apiserver and
//! kubectl in that directory; there also the rows that take policies away.

use std::path::PathBuf;
use std::process::ExitCode;

use policy_tests::server::ApiServer;
use policy_tests::{Error, Report, run, run_alone};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut kubeconfig, mut kubectl, mut binaries) = (None, PathBuf::from("kubectl"), None);
    while let Some(arg) = args.next() {
        let value = args.next().map(PathBuf::from);
        match (arg.as_str(), value) {
            ("--kubeconfig", Some(value)) => kubeconfig = Some(value),
            ("--kubectl", Some(value)) => kubectl = value,
            ("--binaries", Some(value)) => binaries = Some(value),
            _ => {
                eprintln!("usage: policy-tests --kubeconfig FILE [--kubectl FILE] | --binaries DIRECTORY");
                return ExitCode::from(2);
            }
        }
    }
    let report = match (kubeconfig, binaries) {
        (Some(kubeconfig), _) => run(&kubeconfig, &kubectl),
        (None, Some(binaries)) => own(&binaries),
        (None, None) => {
            eprintln!("policy-tests needs --kubeconfig or --binaries");
            return ExitCode::from(2);
        }
    };
    match report {
        Ok(report) => {
            println!("{report}");
            if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn own(binaries: &std::path::Path) -> Result<Report, Error> {
    let server = ApiServer::start(binaries)?;
    run_alone(&server.kubeconfig(), &binaries.join("kubectl"))
}
