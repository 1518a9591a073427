//! kubeadm's manifest, with rusd in etcd's place: every flag as it is written, the certificates as kubeadm makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rusd::cli::{self, Action, Warning};
use serde_json::Value;

use crate::peers::peer;
use crate::ports;
use crate::process::{Process, page, replaced};
use crate::yaml::{documents, texts};

const MANIFEST: &str = include_str!("../../packaging/kubeadm/etcd.yaml");
/// The node's address in it.
const NODE: &str = "192.0.2.10";
const PKI: &str = "/etc/kubernetes/pki/etcd";
const DATA: &str = "/var/lib/etcd";

fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params
}

/// An authority that is its own name, and what it issues; keys are on a curve, as with kubeadm's `encryptionAlgorithm: ECDSA-P256`.
fn certificates(dir: &Path) {
    let mut params = named("etcd-ca", &["etcd-ca"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
    fs::write(dir.join("ca.crt"), authority.pem()).expect("written");
    let own = ["localhost", "node", NODE, "127.0.0.1", "::1"];
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for (file, common_name, names, usages) in [
        ("server", "node", &own[..], &both[..]),
        ("peer", "node", &own, &both),
        ("apiserver-etcd-client", "kube-apiserver-etcd-client", &[], &both[1..]),
    ] {
        let mut params = named(common_name, names);
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &authority).expect("signed");
        fs::write(dir.join(format!("{file}.crt")), cert.pem()).expect("written");
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("written");
    }
}

fn probe<'a>(pod: &'a Value, kind: &str) -> (u64, &'a str) {
    let get = &pod[kind]["httpGet"];
    assert_eq!((&get["host"], &get["scheme"]), (&"127.0.0.1".into(), &"HTTP".into()));
    let ports = pod["ports"].as_array().expect("ports");
    let port = ports.iter().find(|port| port["name"] == get["port"]).expect("the probe's port");
    (port["containerPort"].as_u64().expect("a number"), get["path"].as_str().expect("a path"))
}

#[test]
fn the_static_pod_serves_by_kubeadms_own_flags() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = dir.path().join("pki");
    fs::create_dir(&pki).expect("a directory");
    certificates(&pki);
    let manifest = documents(MANIFEST).expect("YAML").remove(0);
    let pod = &manifest["spec"]["containers"][0];
    let [local, outer, peer_port, probed] = std::array::from_fn(|_| ports::free());
    // Addresses and directories are the node's; every flag and everything else stays.
    let places = [
        ("127.0.0.1:2379".to_owned(), format!("127.0.0.1:{local}")),
        ("127.0.0.1:2381".to_owned(), format!("127.0.0.1:{probed}")),
        (format!("{NODE}:2379"), format!("127.0.0.1:{outer}")),
        (format!("{NODE}:2380"), format!("127.0.0.1:{peer_port}")),
        (PKI.to_owned(), pki.display().to_string()),
        (DATA.to_owned(), dir.path().join("data").display().to_string()),
    ];
    let command = texts(&pod["command"]);
    let [program, flags @ ..] = &command[..] else { panic!("no command") };
    assert_eq!(program, "etcd", "the image has a link of this name");
    let Ok(Action::Run(run)) = cli::parse(flags.to_vec(), []) else { panic!("{flags:?}") };
    // rusd compares states while it runs (`docs/adr/0018-divergence.md`), not at the start; nothing else is without effect.
    assert_eq!(run.warnings, [Warning::Gate { gate: "InitialCorruptCheck", open: false }]);
    let flags: Vec<String> = flags.iter().map(|flag| replaced(flag, &places)).collect();
    assert!(flags.iter().all(|flag| !flag.contains(NODE)), "{flags:?}");
    let mut process = Process::start(dir.path(), "etcd", &flags);
    for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let (port, path) = probe(pod, kind);
        assert_eq!(port, 2381);
        process.wait(kind, || page(probed, path) == Some(200));
    }
    let Some(etcdctl) = peer("etcdctl", "the_static_pod_serves_by_kubeadms_own_flags") else { return };
    let ask = |port: u16, who: Option<&str>, words: &[&str]| etcd(&etcdctl, &pki, port, who, words);
    let client = Some("apiserver-etcd-client");
    ask(local, client, &["put", "/registry/greeting", "hello"]).expect("put");
    let got = ask(outer, client, &["get", "/registry/greeting", "--print-value-only"]).expect("got");
    assert_eq!(got.trim(), "hello");
    ask(local, None, &["get", "/registry/greeting"]).expect_err("a client without a certificate is served");
}

fn etcd(etcdctl: &PathBuf, pki: &Path, port: u16, who: Option<&str>, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(etcdctl);
    command.arg(format!("--endpoints=https://127.0.0.1:{port}")).arg("--command-timeout=10s");
    command.arg(format!("--cacert={}", pki.join("ca.crt").display())).args(words);
    if let Some(who) = who {
        command.arg(format!("--cert={}", pki.join(format!("{who}.crt")).display()));
        command.arg(format!("--key={}", pki.join(format!("{who}.key")).display()));
    }
    let output = command.output().expect("etcdctl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
