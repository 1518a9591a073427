//! How subcommands are read.

use super::*;

fn parsed(text: &str) -> Result<Option<Tool>, CliError> {
    with(text, &[])
}

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Option<Tool>, CliError> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let arguments: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    Ok(parse(&arguments, &variables)?.map(|action| match action {
        Action::Tool(tool) => *tool,
        other => panic!("{other:?}"),
    }))
}

#[test]
fn restores_as_etcdutl_does() {
    let text = "snapshot restore s.db --name m1 --data-dir=/d --initial-cluster m1=http://h:1,m2=http://h:2 \
        --initial-advertise-peer-urls http://h:1 --initial-cluster-token t --bump-revision 1000 --mark-compacted \
        --skip-hash-check=true --wal-dir /w --initial-memory-map-size 0";
    let Tool::Import { source, config, bump_revision, mark_compacted, skip_hash_check, wal } =
        parsed(text).expect("valid").expect("a subcommand")
    else {
        panic!("another one");
    };
    assert_eq!((source, wal), (PathBuf::from("s.db"), None));
    assert_eq!((bump_revision, mark_compacted, skip_hash_check), (1000, true, true));
    assert_eq!((config.member.name.as_str(), config.clustering.initial_cluster.len()), ("m1", 2));
    assert_eq!(config.member.wal_dir, Some(PathBuf::from("/w")));
    let Some(Tool::Import { config, .. }) = parsed("import s.db").expect("valid") else { panic!("another one") };
    assert_eq!(config.member.data_dir, PathBuf::from("default.etcd"));
}

#[test]
fn follows_by_default_with_a_fence() {
    let follow = |text: &str| match parsed(text).expect("valid") {
        Some(Tool::Follow { remote, serve, fence, .. }) => (remote, serve, fence),
        other => panic!("{other:?}"),
    };
    let (remote, serve, fence) = follow("import --from=a:1,https://b:2 --user root:p:w --serve --data-dir d");
    assert_eq!(remote.endpoints, ["http://a:1", "https://b:2"]);
    assert_eq!((remote.user.as_str(), remote.password.reveal(), serve, fence), ("root", "p:w", true, true));
    assert!(!follow("import --from a:1 --fence=false").2);
}

#[test]
fn a_password_may_come_by_a_variable() {
    let user = |text: &str| match with(text, &[("ETCDCTL_USER", "ann"), ("ETCDCTL_PASSWORD", "p")]).expect("valid") {
        Some(Tool::Save { remote, .. }) => {
            assert!(!format!("{remote:?}").contains("\"p"), "{remote:?}");
            (remote.user.clone(), remote.password.reveal().to_owned())
        }
        other => panic!("{other:?}"),
    };
    let is = |user: &str, password: &str| (user.to_owned(), password.to_owned());
    assert_eq!(user("snapshot save f"), is("ann", "p"));
    assert_eq!(user("snapshot save f --user root"), is("root", "p"));
    assert_eq!(user("snapshot save f --user root --password pw"), is("root", "pw"));
    assert_eq!(user("snapshot save f --user root:pw"), is("root", "pw"));
}

#[test]
fn refuses_what_it_does_not_know() {
    for text in [
        "snapshot",
        "snapshot status",
        "snapshot status a b",
        "snapshot status a -w yaml",
        "snapshot save a --cert c",
        "snapshot restore a --sink",
        "snapshot restore a --bump-revision many",
        "import",
        "import --from",
        "import --from=",
        "import take-over",
        "import --from a:1 b",
    ] {
        assert!(matches!(parsed(text), Err(CliError::Usage { .. })), "{text}");
    }
    assert!(parsed("--name a").expect("no subcommand").is_none());
    let unlike = "import f --initial-cluster a=http://h:1 --name b";
    assert!(matches!(parsed(unlike), Err(CliError::Invalid(_))));
}

#[test]
fn a_server_is_reached_by_etcdctls_flags_or_variables() {
    let variables = [
        ("ETCDCTL_ENDPOINTS", "a:1, b:2"),
        ("ETCDCTL_CACERT", "/ca"),
        ("ETCDCTL_CERT", "/cert"),
        ("ETCDCTL_KEY", "/key"),
        ("ETCDCTL_DIAL_TIMEOUT", "3s"),
        ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true"),
    ];
    let status = |text: &str, variables: &[(&str, &str)]| match with(text, variables) {
        Ok(Some(Tool::Health { remote, flags })) => (remote, flags),
        other => panic!("{other:?}"),
    };
    let (remote, flags) = status("status", &variables);
    assert_eq!(remote.endpoints, ["https://a:1", "https://b:2"]);
    assert_eq!((remote.cert, remote.trust_anyone), (Some(PathBuf::from("/cert")), true));
    assert_eq!(remote.dial_timeout, Duration::from_secs(3));
    assert_eq!((flags.every, flags.exit_code, flags.members_min), (None, false, 0));
    // A flag comes before its variable, and what is empty says nothing.
    let (remote, flags) = status(
        "status --endpoints=http://c:3 --insecure-skip-tls-verify=false --cluster --members 3 --exit-code -w json",
        &variables,
    );
    assert_eq!((remote.endpoints.as_slice(), remote.trust_anyone), (&["http://c:3".to_owned()][..], false));
    assert!(flags.cluster && flags.exit_code && flags.json && flags.members_min == 3);
    let (remote, flags) = status("status --watch --interval=500ms", &[("ETCDCTL_ENDPOINTS", "")]);
    assert_eq!(remote.endpoints, ["http://127.0.0.1:2379"]);
    assert_eq!(flags.every, Some(Duration::from_millis(500)));
    // What is imported is what `--from` names.
    let Ok(Some(Tool::Follow { remote, .. })) = with("import --from=c:3", &[("ETCDCTL_ENDPOINTS", "a:1")]) else {
        panic!("another one");
    };
    assert_eq!(remote.endpoints, ["http://c:3"]);
}

#[test]
fn a_subcommand_tells_its_own_flags_and_takes_no_others() {
    let hint = |text: &str| match parsed(text) {
        Err(CliError::Usage { hint, .. }) => hint,
        other => panic!("{other:?}"),
    };
    assert_eq!(hint("status --sink"), "rusd status [flags]; rusd status --help lists the flags");
    assert!(hint("snapshot status a --listen-client-urls=x").starts_with("rusd snapshot status FILE"));
    let words = ["status", "--help"].map(str::to_owned);
    let Ok(Some(Action::Print(text))) = parse(&words, &[]) else { panic!("no help") };
    assert!(text.contains("--exit-code"), "{text}");
    for text in ["status a", "status --watch --exit-code", "status --interval=1ms", "doctor -w yaml", "completions"] {
        assert!(matches!(parsed(text), Err(CliError::Usage { .. })), "{text}");
    }
}
