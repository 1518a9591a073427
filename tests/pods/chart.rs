//! What the chart types, as its goldens have it (`cargo xtask chart` holds them to the chart), is what rusd reads.

use std::fs;

use rusd::cli::{self, Action, Tool};

use crate::yaml;

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

/// Commands in a text, whether lines of their own (joined where they go on) or not.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let inline = joined.split('`').skip(1).step_by(2).filter(|text| !text.trim().contains('\n')).map(str::to_owned);
    let typed = |line: &&str| ["helm ", "kubectl ", "for "].iter().any(|word| line.trim_start().starts_with(word));
    inline.chain(joined.lines().filter(typed).map(str::to_owned)).collect()
}

#[test]
fn no_command_forgets_the_releases_values_or_deletes_its_backups() {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/rusd");
    let read = |path: &str| fs::read_to_string(format!("{chart}/{path}")).expect("a text");
    let (readme, notes) = (read("README.md"), read("templates/NOTES.txt"));
    let mut upgrades = 0;
    for command in commands(&readme).into_iter().chain(commands(&notes)) {
        let is_upgrade = command.contains("helm ") && command.contains(" upgrade ") && command.contains("--set");
        upgrades += usize::from(is_upgrade);
        assert!(!is_upgrade || command.contains("--reset-then-reuse-values"), "{command}");
        // The backups' claim has the release's labels, too.
        let deletes_claims = command.contains("delete pvc") || command.contains("delete persistentvolumeclaim");
        assert!(!deletes_claims || (command.contains("pvc data-") && !command.contains(" -l ")), "{command}");
        let deletes_pods = command.contains("delete pod") && command.contains(" -l ");
        assert!(!deletes_pods || command.contains("component=member"), "{command}");
    }
    assert!(upgrades >= 5, "{upgrades}");
    // Where the image has it is in its PATH; nothing else is.
    assert!(notes.contains(" -- rusd status ") && !notes.contains("/rusd "), "{notes}");
}

/// What the panels of a dashboard ask for.
fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    if let Some(expr) = value["expr"].as_str() {
        found.push(expr.to_owned());
    }
    let inner: Vec<_> = match value {
        serde_json::Value::Array(items) => items.iter().collect(),
        serde_json::Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    };
    inner.into_iter().for_each(|value| expressions(value, found));
}

#[test]
fn every_panel_asks_for_a_figure_that_there_is() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).expect("a text");
    let families = read("src/api/metrics/families.txt");
    let known: Vec<_> = families.lines().filter_map(|line| line.split(' ').next()).collect();
    let dashboard = serde_json::from_str(&read("charts/rusd/files/dashboard.json")).expect("JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for expr in found {
        let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = |word: &&str| ["etcd_", "rusd_", "process_", "grpc_"].iter().any(|start| word.starts_with(start));
        for figure in words.filter(ours) {
            let ends = ["_bucket", "_sum", "_count"];
            let whole = ends.iter().find_map(|end| figure.strip_suffix(end)).unwrap_or(figure);
            assert!(known.contains(&figure) || known.contains(&whole), "there is no {figure}: {expr}");
        }
    }
}

/// The values below one, by their whole names; what is a value itself (`{}`, `[]`, resources) isn't looked into.
fn leaves(name: &str, value: &serde_json::Value, found: &mut Vec<String>) {
    match value.as_object().filter(|map| !map.is_empty() && !name.ends_with("resources")) {
        Some(map) => {
            for (key, value) in map {
                let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                leaves(&inner, value, found);
            }
        }
        None => found.push(name.to_owned()),
    }
}

/// Cause: rows of the table named a group and not what is in it. Symptom: a value that could be found in the chart alone.
#[test]
fn every_value_is_in_the_table() {
    let read = |name: &str| {
        fs::read_to_string(format!("{}/charts/rusd/{name}", env!("CARGO_MANIFEST_DIR"))).expect("of the chart")
    };
    let (values, readme) = (yaml::documents(&read("values.yaml")).expect("YAML"), read("README.md"));
    let mut found = Vec::new();
    leaves("", &values[0], &mut found);
    assert!(found.len() > 70 && found.contains(&"tls.certManager.issuerRef.kind".to_owned()), "{found:?}");
    let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| `")).collect();
    for name in found {
        // A row names one wholly, and those beside it by what comes after the group's name.
        let is_in = |row: &&&str| {
            let named = row.split('|').nth(1).unwrap_or_default();
            let group = named.split('`').nth(1).unwrap_or_default().split('.').next();
            let is_of_group = group == name.split('.').next();
            let mut ends = name.match_indices('.').map(|(at, _)| &name[at..]);
            named.contains(&format!("`{name}`")) || (is_of_group && ends.any(|end| named.contains(&format!("`{end}`"))))
        };
        assert!(rows.iter().any(|row| is_in(&row)), "{name} is in no row of the table");
    }
}

#[test]
fn every_alert_asks_for_a_figure_that_there_is_and_is_in_the_guide() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).expect("a text");
    let (rules, families) = (read("charts/rusd/files/rules.yaml"), read("src/api/metrics/families.txt"));
    let guide = read("INTEGRATION_GUIDE.md");
    let known: Vec<_> = families.lines().filter_map(|line| line.split(' ').next()).collect();
    let of_backups = ["kube_cronjob_status_last_schedule_time", "kube_cronjob_status_last_successful_time"];
    let mut names = Vec::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("a name");
        assert!(guide.contains(&format!("\n| {name} |")), "the guide doesn't say what to do about {name}");
        for part in ["expr:", "severity:", "summary:", "description:"] {
            assert_eq!(rule.matches(part).count(), 1, "{name}: {part}");
        }
        let level = rule.split("severity: ").nth(1).and_then(|rest| rest.split('}').next());
        assert!(matches!(level, Some("critical" | "warning")), "{name}: {level:?}");
        let expr = rule.split("expr:").nth(1).and_then(|rest| rest.split("labels:").next()).expect("an expression");
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            assert_eq!(expr.matches(open).count(), expr.matches(close).count(), "{name}: {expr}");
        }
        let pieces: Vec<_> = expr.split("{ {{- .").collect();
        assert!(pieces.len() > 1, "{name} asks for no figure of this release: {expr}");
        for two in pieces.windows(2) {
            let start = two[0].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
            let figure = &two[0][start..];
            let is_known = match two[1].split(' ').next() {
                Some("job") => known.contains(&figure.trim_end_matches("_bucket")),
                Some("backup") => of_backups.contains(&figure),
                other => panic!("{name}: {other:?}"),
            };
            assert!(is_known, "{name}: there is no {figure}");
        }
        names.push(name);
    }
    for wanted in
        ["RusdNoSpace", "RusdDiskFull", "RusdCorrupt", "RusdBackupFails", "RusdSnapshotDamaged", "RusdLogDamaged"]
    {
        assert!(names.contains(&wanted), "{wanted} is missing");
    }
    let listed = guide.lines().filter_map(|line| line.strip_prefix("| Rusd")?.split(' ').next());
    for name in listed.map(|name| format!("Rusd{name}")) {
        assert!(names.contains(&name.as_str()), "the guide has {name}, the chart hasn't");
    }
}
