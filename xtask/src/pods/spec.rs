//! What a rendered pod asks for, taken apart. A field that nothing here enacts is an error, unless it is one of those that
//! a machine without Kubernetes can't: they are listed.

use std::time::Duration;

use serde_json::Value;

use super::Result;

/// Placement, rights in the API, sizes, and who pulls: the control plane's and kubelet's own business.
const NOT_OF_POD: &[&str] = &[
    "serviceAccountName",
    "imagePullSecrets",
    "priorityClassName",
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
];
const NOT_OF_CONTAINER: &[&str] = &["imagePullPolicy", "ports", "resources"];

/// A pod with its one container.
#[derive(Clone, Debug)]
pub(super) struct PodSpec {
    pub(super) image: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, Source)>,
    pub(super) mounts: Vec<Mount>,
    pub(super) probes: Probes,
    pub(super) grace: Duration,
    pub(super) user: u64,
    pub(super) group: u64,
    /// Of the files on its volumes.
    pub(super) fs_group: u64,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Text(String),
    /// Its own name.
    PodName,
    /// Object and key.
    ConfigMap(String, String),
    Secret(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: String,
    pub(super) read_only: bool,
    pub(super) volume: Volume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Volume {
    /// Of the set's templates: one for each pod.
    Template(String),
    Claim(String),
    /// Its name, and who may read it.
    Secret(String, u32),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    pub(super) startup: Option<Probe>,
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
}

/// A page that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) path: String,
    pub(super) port: u16,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    /// So many in a row mean something.
    pub(super) failures: u32,
}

impl PodSpec {
    /// Of a pod template; `templates` are the claims that a StatefulSet makes for each pod.
    pub(super) fn of(template: &Value, templates: &[String]) -> Result<Self> {
        let pod = &template["spec"];
        let own = ["securityContext", "terminationGracePeriodSeconds", "containers", "volumes", "restartPolicy"];
        let no_token = ["automountServiceAccountToken", "enableServiceLinks"];
        only("a pod", pod, &[&own[..], &no_token, NOT_OF_POD].concat())?;
        for field in no_token {
            demand(pod[field] == false, format!("{field}: nothing but false is enacted here"))?;
        }
        let context = &pod["securityContext"];
        let known = ["runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "seccompProfile"];
        only("a pod's securityContext", context, &known)?;
        let [container] = pod["containers"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err("one container is enacted here".into());
        };
        let own = ["name", "image", "args", "env", "securityContext", "volumeMounts"];
        let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
        only("a container", container, &[&own[..], &probes, NOT_OF_CONTAINER].concat())?;
        let hard = serde_json::json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        });
        demand(
            container["securityContext"] == hard,
            "a container's securityContext is enacted only as the chart has it",
        )?;
        let [startup, liveness, readiness] = probes.map(|name| probe(&container[name], container));
        Ok(Self {
            image: text(&container["image"], "image")?,
            args: array(&container["args"]).iter().map(|arg| text(arg, "an argument")).collect::<Result<_>>()?,
            env: array(&container["env"]).iter().map(variable).collect::<Result<_>>()?,
            mounts: array(&container["volumeMounts"])
                .iter()
                .map(|mount| mounted(mount, pod, templates))
                .collect::<Result<_>>()?,
            probes: Probes { startup: startup?, liveness: liveness?, readiness: readiness? },
            grace: Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30)),
            user: number(&context["runAsUser"], "runAsUser")?,
            group: number(&context["runAsGroup"], "runAsGroup")?,
            fs_group: number(&context["fsGroup"], "fsGroup")?,
        })
    }

    /// The arguments, with the variables that they name put in.
    pub(super) fn arguments(&self, env: &[(String, String)]) -> Vec<String> {
        let put_in =
            |arg: &String| env.iter().fold(arg.clone(), |arg, (name, value)| arg.replace(&format!("$({name})"), value));
        self.args.iter().map(put_in).collect()
    }
}

fn variable(entry: &Value) -> Result<(String, Source)> {
    only("a variable", entry, &["name", "value", "valueFrom"])?;
    let name = text(&entry["name"], "name")?;
    let from = &entry["valueFrom"];
    let key = |what: &str| {
        let object = &from[what];
        Ok::<_, Box<dyn std::error::Error>>((text(&object["name"], "name")?, text(&object["key"], "key")?))
    };
    let source = if let Some(value) = entry["value"].as_str() {
        Source::Text(value.to_owned())
    } else if from["fieldRef"]["fieldPath"] == "metadata.name" {
        Source::PodName
    } else if from["configMapKeyRef"].is_object() {
        let (object, key) = key("configMapKeyRef")?;
        Source::ConfigMap(object, key)
    } else if from["secretKeyRef"].is_object() {
        let (object, key) = key("secretKeyRef")?;
        Source::Secret(object, key)
    } else {
        return Err(format!("a variable that isn't enacted here: {entry}").into());
    };
    Ok((name, source))
}

fn mounted(mount: &Value, pod: &Value, templates: &[String]) -> Result<Mount> {
    only("a mount", mount, &["name", "mountPath", "readOnly"])?;
    let name = text(&mount["name"], "name")?;
    let volume = array(&pod["volumes"]).iter().find(|volume| volume["name"] == *name);
    let volume = match volume {
        None if templates.contains(&name) => Volume::Template(name),
        None => return Err(format!("there is no volume {name}").into()),
        Some(volume) => {
            let (secret, claim) = (&volume["secret"], &volume["persistentVolumeClaim"]);
            if secret.is_object() {
                let mode = number(&secret["defaultMode"], "defaultMode")?;
                Volume::Secret(text(&secret["secretName"], "secretName")?, u32::try_from(mode)?)
            } else if claim.is_object() {
                Volume::Claim(text(&claim["claimName"], "claimName")?)
            } else {
                return Err(format!("a volume that isn't enacted here: {volume}").into());
            }
        }
    };
    let read_only = mount["readOnly"].as_bool().unwrap_or(false);
    Ok(Mount { path: text(&mount["mountPath"], "mountPath")?, read_only, volume })
}

fn probe(probe: &Value, container: &Value) -> Result<Option<Probe>> {
    if probe.is_null() {
        return Ok(None);
    }
    only("a probe", probe, &["httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"])?;
    let get = &probe["httpGet"];
    only("a probe's httpGet", get, &["path", "port"])?;
    let port = array(&container["ports"]).iter().find(|port| port["name"] == get["port"]);
    let seconds = |name: &str, default: u64| Duration::from_secs(probe[name].as_u64().unwrap_or(default));
    Ok(Some(Probe {
        path: text(&get["path"], "path")?,
        port: u16::try_from(number(&port.unwrap_or(&Value::Null)["containerPort"], "a probe's port")?)?,
        period: seconds("periodSeconds", 10),
        timeout: seconds("timeoutSeconds", 1),
        failures: u32::try_from(probe["failureThreshold"].as_u64().unwrap_or(3))?,
    }))
}

pub(super) fn text(value: &Value, what: &str) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{what}: a text is expected, not {value}").into())
}

pub(super) fn number(value: &Value, what: &str) -> Result<u64> {
    value.as_u64().ok_or_else(|| format!("{what}: a number is expected, not {value}").into())
}

pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn demand(holds: bool, what: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

/// Refuses what isn't known.
pub(super) fn only(what: &str, object: &Value, known: &[&str]) -> Result<()> {
    let mut fields = object.as_object().into_iter().flat_map(|fields| fields.keys());
    match fields.find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(format!("{what}: `{field}` isn't enacted here").into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    /// What a member's pod is in one of the goldens' whole rendering.
    fn template() -> Value {
        let golden = include_str!("../../../charts/rusd/ci/golden/default.yaml");
        let documents = yaml::documents(golden).expect("YAML");
        let set = documents.into_iter().find(|document| document["kind"] == "StatefulSet").expect("a set");
        set["spec"]["template"].clone()
    }

    #[test]
    fn a_member_of_the_chart_is_taken_apart_whole() {
        let spec = PodSpec::of(&template(), &["data".to_owned()]).expect("known");
        assert_eq!((spec.user, spec.group, spec.grace), (65_532, 65_532, Duration::from_secs(60)));
        let startup = spec.probes.startup.clone().expect("a probe");
        assert_eq!((startup.path.as_str(), startup.port, startup.failures), ("/livez", 2381, 120));
        let data = Volume::Template("data".to_owned());
        assert_eq!(spec.mounts, [Mount { path: "/var/lib/rusd".to_owned(), read_only: false, volume: data }]);
        let env =
            [("POD_NAME", "r-1"), ("RUSD_REPLICAS", "5")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let args = spec.arguments(&env);
        assert!(args.contains(&"--replicas=5".to_owned()) && args.iter().all(|arg| !arg.contains("$(")), "{args:?}");
    }

    #[test]
    fn what_is_not_enacted_is_refused() {
        let lifecycle =
            |pod: &mut Value| pod["spec"]["containers"][0]["lifecycle"] = serde_json::json!({"preStop": {}});
        let privileged = |pod: &mut Value| pod["spec"]["containers"][0]["securityContext"]["privileged"] = true.into();
        let network = |pod: &mut Value| pod["spec"]["hostNetwork"] = true.into();
        let changes: [&dyn Fn(&mut Value); 3] = [&lifecycle, &privileged, &network];
        for change in changes {
            let mut changed = template();
            change(&mut changed);
            assert!(PodSpec::of(&changed, &["data".to_owned()]).is_err(), "{changed}");
        }
        assert!(PodSpec::of(&template(), &[]).is_err(), "its volume");
    }
}
