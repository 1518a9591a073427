//! What the chart types, as its goldens have it (`cargo xtask chart` holds them to the chart), is what rusd reads.

use std::fs;

use rusd::cli::{self, Action, Tool};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/rusd/ci/golden");

/// The arguments of each container, in order.
fn arguments(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "args:" {
            let items =
                lines.by_ref().map_while(|line| line.trim().strip_prefix("- ").map(|item| item.trim_matches('"')));
            found.push(
                items
                    .map(|item| item.replace("$(POD_NAME)", "release-rusd-2").replace("$(RUSD_REPLICAS)", "3"))
                    .collect(),
            );
        }
    }
    found
}

#[test]
fn every_command_of_the_chart_is_read() {
    let text = fs::read_to_string(format!("{GOLDEN}/default.yaml")).expect("a golden");
    let mut kinds = Vec::new();
    for arguments in arguments(&text) {
        let action = cli::parse(arguments.clone(), [("ETCDCTL_USER".to_owned(), "root".to_owned())]);
        let Ok(Action::Tool(tool)) = action else { panic!("{arguments:?}: {action:?}") };
        kinds.push(match *tool {
            Tool::PodStart { config, flags, .. } => {
                assert_eq!((flags.replicas, config.member.name.as_str()), (3, "release-rusd-2"));
                assert_eq!(config.member.quota_backend_bytes, 2 << 30);
                assert!(config.clustering.auto_promote_learners);
                "start"
            }
            Tool::PodShrink { set, replicas, remote, .. } => {
                assert_eq!((set.as_str(), replicas, remote.endpoints.len()), ("release-rusd", 3, 4));
                "shrink"
            }
            Tool::Health { flags, .. } => {
                assert!(flags.exit_code && flags.cluster && flags.members_min == 3);
                "status"
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(kinds, ["start", "shrink", "status"]);
}

#[test]
fn every_flag_of_other_values_is_known() {
    let help = |words: &[&str]| {
        let words = words.iter().chain(&["--help"]).map(|word| (*word).to_owned());
        match cli::parse(words, []) {
            Ok(Action::Print(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let mut known = help(&[]);
    for words in [&["pod", "start"][..], &["pod", "shrink"], &["pod", "users"], &["pod", "backup"], &["status"]] {
        known += &help(words);
    }
    let mut count = 0;
    for name in ["single", "secured", "large", "restored"] {
        let text = fs::read_to_string(format!("{GOLDEN}/{name}.diff")).expect("a golden");
        for line in text.lines().filter_map(|line| line.strip_prefix('+')) {
            let Some(flag) = line.trim().strip_prefix("- ").map(|item| item.trim_matches('"')) else { continue };
            let Some(flag) = flag.strip_prefix("--") else { continue };
            let flag = flag.split('=').next().expect("a part");
            let is_known = known.lines().any(|line| {
                line.trim_start().strip_prefix("--").is_some_and(|line| line.split(' ').next() == Some(flag))
            });
            assert!(is_known, "{name}: --{flag}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}
