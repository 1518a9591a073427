//! The filter of system calls that pods get by `seccompProfile: RuntimeDefault`, as Debian's containers-common has it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::yaml::texts;

const PROFILE: &str = "/usr/share/containers/seccomp.json";
/// This processor, as the profile calls it, and as the kernel does.
const ARCH: (&str, &str) =
    if cfg!(target_arch = "aarch64") { ("arm64", "SCMP_ARCH_AARCH64") } else { ("amd64", "SCMP_ARCH_X86_64") };

/// The filter, or nothing where there is no profile.
pub(super) fn runtime_default() -> Result<Option<Value>, Box<dyn std::error::Error>> {
    if !is_there() {
        return Ok(None);
    }
    Ok(Some(filter(&serde_json::from_slice(&fs::read(PROFILE)?)?)))
}

/// Whether this machine has the profile.
pub(super) fn is_there() -> bool {
    Path::new(PROFILE).is_file()
}

/// What of the profile holds for a process without capabilities.
fn filter(profile: &Value) -> Value {
    let has = |rule: &Value, side: &str, kind: &str| !texts(&rule[side][kind]).is_empty();
    let holds = |rule: &&Value| {
        let arches = |side: &str| texts(&rule[side]["arches"]).iter().any(|arch| arch == ARCH.0);
        !has(rule, "includes", "caps")
            && (!has(rule, "includes", "arches") || arches("includes"))
            && !arches("excludes")
    };
    let rules = profile["syscalls"].as_array().into_iter().flatten().filter(holds).map(|rule| {
        let mut kept = json!({"names": rule["names"], "action": rule["action"]});
        for key in ["args", "errnoRet"] {
            if !rule[key].is_null() && rule[key] != json!([]) {
                kept[key] = rule[key].clone();
            }
        }
        kept
    });
    let rules: Vec<Value> = rules.collect();
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [ARCH.1],
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_capabilities_and_other_processors_are_left_out() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["s390"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
                {"names": ["own"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": [ARCH.0]}},
            ],
        });
        let filter = filter(&profile);
        let rules = filter["syscalls"].as_array().expect("rules");
        let names: Vec<_> = rules.iter().map(|rule| rule["names"][0].as_str().expect("a name")).collect();
        assert_eq!(names, ["read", "setns", "own"]);
        assert_eq!((rules[0].get("args"), &rules[1]["errnoRet"]), (None, &json!(1)));
        assert_eq!(filter["defaultErrnoRet"], 38);
    }
}
