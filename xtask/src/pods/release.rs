//! What helm would send for one revision of a release: its objects, and its hooks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::spec::{self, PodSpec, array, text};
use super::{NAMESPACE, RELEASE, Result};
use crate::{chart, sh, yaml};

/// One revision, rendered by helm itself.
#[derive(Clone, Debug)]
pub(super) struct Release {
    pub(super) set: Set,
    /// Keys and values, by name.
    pub(super) config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// By the hook that it is (`pre-upgrade`, `test`, …), or that of a CronJob by its name.
    pub(super) jobs: Vec<Job>,
}

/// A StatefulSet.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) headless: String,
    pub(super) replicas: u32,
    pub(super) min_ready_seconds: u64,
    pub(super) spec: PodSpec,
    /// What a pod is compared with: another template is another pod.
    pub(super) template: Value,
    pub(super) claims: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) hooks: Vec<String>,
    pub(super) tries: u64,
    /// Of all its tries together.
    pub(super) deadline: Option<Duration>,
    pub(super) spec: PodSpec,
}

impl Release {
    /// What the chart makes of `values`, `name=value` each.
    pub(super) fn render(values: &[String], is_upgrade: bool) -> Result<Self> {
        let namespace = format!("--namespace={NAMESPACE}");
        let mut args = vec!["template", RELEASE, ".", &namespace, chart::KUBE];
        args.extend(is_upgrade.then_some("--is-upgrade"));
        let sets: Vec<_> = values.iter().map(|value| format!("--set={value}")).collect();
        args.extend(sets.iter().map(String::as_str));
        let rendered = sh::output(chart::helm_with(&chart::helm()?, &sh::root().join("charts/rusd"), &args))?;
        Self::of(&yaml::documents(&String::from_utf8(rendered)?)?)
    }

    fn of(objects: &[Value]) -> Result<Self> {
        let mut set = None;
        let (mut config_maps, mut jobs) = (BTreeMap::new(), Vec::new());
        // Templates that render to nothing leave empty documents.
        for object in objects.iter().filter(|object| !object.is_null()) {
            let name = text(&object["metadata"]["name"], "name")?;
            match object["kind"].as_str().unwrap_or_default() {
                "StatefulSet" => set = Some(Set::of(&name, &object["spec"])?),
                "ConfigMap" => {
                    let data = object["data"].as_object().into_iter().flatten();
                    let data = data.map(|(key, value)| Ok((key.clone(), text(value, key)?))).collect::<Result<_>>()?;
                    config_maps.insert(name, data);
                }
                "Job" => {
                    let hooks = text(&object["metadata"]["annotations"]["helm.sh/hook"], "a Job that is no hook")?;
                    let hooks = hooks.split(',').map(str::to_owned).collect();
                    jobs.push(Job::of(name, hooks, &object["spec"])?);
                }
                "CronJob" => jobs.push(Job::of(name, Vec::new(), &object["spec"]["jobTemplate"]["spec"])?),
                // Names and addresses are `Cluster`'s; the rest is for others than the pods.
                "Service" | "PersistentVolumeClaim" | "PodDisruptionBudget" | "NetworkPolicy" | "ServiceAccount" => {}
                other => return Err(format!("a {other} isn't enacted here").into()),
            }
        }
        Ok(Self { set: set.ok_or("there is no StatefulSet")?, config_maps, jobs })
    }

    /// The jobs of a hook.
    pub(super) fn hooks(&self, hook: &str) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(move |job| job.hooks.iter().any(|name| name == hook))
    }

    /// A job by its name's end.
    pub(super) fn job(&self, end: &str) -> Result<&Job> {
        let found = self.jobs.iter().find(|job| job.name.ends_with(end));
        found.ok_or_else(|| format!("there is no job …{end}").into())
    }
}

impl Set {
    fn of(name: &str, set: &Value) -> Result<Self> {
        let known = [
            "replicas",
            "serviceName",
            "podManagementPolicy",
            "updateStrategy",
            "minReadySeconds",
            // Claims are kept, whatever it says: nothing here deletes one but the story.
            "persistentVolumeClaimRetentionPolicy",
            "selector",
            "template",
            "volumeClaimTemplates",
        ];
        spec::only("a StatefulSet", set, &known)?;
        if set["podManagementPolicy"] != "Parallel"
            || set["updateStrategy"] != serde_json::json!({"type": "RollingUpdate"})
        {
            return Err("a StatefulSet is enacted only as the chart has it: Parallel, RollingUpdate".into());
        }
        let claims: Vec<String> = array(&set["volumeClaimTemplates"])
            .iter()
            .map(|claim| text(&claim["metadata"]["name"], "a claim's name"))
            .collect::<Result<_>>()?;
        Ok(Self {
            name: name.to_owned(),
            headless: text(&set["serviceName"], "serviceName")?,
            replicas: u32::try_from(spec::number(&set["replicas"], "replicas")?)?,
            min_ready_seconds: set["minReadySeconds"].as_u64().unwrap_or_default(),
            spec: PodSpec::of(&set["template"], &claims)?,
            template: set["template"].clone(),
            claims,
        })
    }
}

impl Job {
    fn of(name: String, hooks: Vec<String>, job: &Value) -> Result<Self> {
        spec::only("a Job", job, &["backoffLimit", "activeDeadlineSeconds", "template"])?;
        let tries = 1 + job["backoffLimit"].as_u64().unwrap_or(6);
        let deadline = job["activeDeadlineSeconds"].as_u64().map(Duration::from_secs);
        Ok(Self { name, hooks, tries, deadline, spec: PodSpec::of(&job["template"], &[])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_its_set_its_size_and_its_hooks() {
        let golden = include_str!("../../../charts/rusd/ci/golden/default.yaml");
        let release = Release::of(&yaml::documents(golden).expect("YAML")).expect("known");
        assert_eq!((release.set.replicas, release.set.claims.as_slice()), (3, &["data".to_owned()][..]));
        assert_eq!(release.config_maps["release-rusd-size"]["replicas"], "3");
        let deadlines: Vec<_> = release.jobs.iter().filter_map(|job| job.deadline).collect();
        assert_eq!(deadlines, [Duration::from_secs(270); 2]);
        let names = |hook: &str| release.hooks(hook).map(|job| job.name.clone()).collect::<Vec<_>>();
        assert_eq!(names("pre-upgrade"), ["release-rusd-shrink"]);
        assert_eq!(names("pre-rollback"), ["release-rusd-shrink"]);
        assert_eq!(names("test"), ["release-rusd-test"]);
    }
}
