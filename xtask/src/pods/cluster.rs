//! As much of a cluster as pods can tell: it takes releases and makes of them what a StatefulSet's controller and kubelet would.
//!
//! ```text
//! upgrade ─► pre-hooks as Jobs ─► objects replaced ─► missing pods made, pods beyond the number deleted, all at once
//!        ─► pods of another template replaced, the highest first, each once those above are ready ─► all ready ─► post-hooks
//! ```
//! Those below aren't looked at, as in Kubernetes below 1.37, whose gate `MaxUnavailableStatefulSet` is off.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::names::Names;
use super::network::Network;
use super::pod::{Environment, Plan, Pod};
use super::release::{Job, Release, Set};
use super::service::Service;
use super::spec::{PodSpec, Source, Volume};
use super::{DOMAIN, NAMESPACE, Result, container};

/// How long anything at all may take here.
const WAIT_MAX: Duration = Duration::from_secs(240);
/// How long what can't succeed is looked at.
const IN_VAIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// Between two tries of a Job; twice as long before each one after that.
const BACK_OFF: Duration = Duration::from_secs(10);

type Objects = BTreeMap<String, BTreeMap<String, String>>;
/// Files of secrets, by the secret's name.
pub(super) type Secrets = BTreeMap<String, Vec<(String, Vec<u8>)>>;

/// The cluster; all of it ends at drop.
pub(super) struct Cluster {
    // In the order in which they end: pods before their network.
    pods: BTreeMap<u32, Member>,
    service: Service,
    names: Names,
    pub(super) network: Network,
    run: PathBuf,
    /// What an image's tag stands for.
    programs: BTreeMap<String, PathBuf>,
    config_maps: Arc<Mutex<Objects>>,
    secrets: Secrets,
    set: Option<Set>,
    started: u32,
    /// How long pods may take until they are ready.
    patience: Duration,
}

struct Member {
    pod: Pod,
    template: serde_json::Value,
}

impl Cluster {
    /// An empty one in a directory of its own.
    pub(super) async fn new(run: &Path, programs: BTreeMap<String, PathBuf>, secrets: Secrets) -> Result<Self> {
        let network = Network::new()?;
        let names = Names::serve(network.dns()).await?;
        let service = Service::serve(network.service()).await?;
        Ok(Self {
            pods: BTreeMap::new(),
            service,
            names,
            network,
            run: run.to_owned(),
            programs,
            config_maps: Arc::default(),
            secrets,
            set: None,
            started: 0,
            patience: WAIT_MAX,
        })
    }

    /// `helm install`.
    pub(super) async fn install(&mut self, release: &Release) -> Result<()> {
        self.hooks(release, "pre-install").await?;
        self.reconcile(release).await?;
        self.hooks(release, "post-install").await
    }

    /// `helm upgrade`.
    pub(super) async fn upgrade(&mut self, release: &Release) -> Result<()> {
        self.hooks(release, "pre-upgrade").await?;
        self.reconcile(release).await?;
        self.hooks(release, "post-upgrade").await
    }

    /// `helm upgrade` to what can't become ready: how it ended.
    ///
    /// # Errors
    /// It was taken.
    pub(super) async fn upgrade_in_vain(&mut self, release: &Release) -> Result<String> {
        self.patience = IN_VAIN;
        let ended = self.upgrade(release).await;
        self.patience = WAIT_MAX;
        match ended {
            Ok(()) => Err("an upgrade that should have failed was taken".into()),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// `helm rollback`, to what was rendered then.
    pub(super) async fn rollback(&mut self, release: &Release) -> Result<()> {
        self.hooks(release, "pre-rollback").await?;
        self.reconcile(release).await?;
        self.hooks(release, "post-rollback").await
    }

    /// `helm test`.
    pub(super) async fn test(&mut self, release: &Release) -> Result<()> {
        self.hooks(release, "test").await
    }

    /// `helm uninstall`: volumes stay.
    pub(super) async fn uninstall(&mut self) -> Result<()> {
        let all: Vec<u32> = self.pods.keys().copied().collect();
        self.delete(&all).await?;
        self.set = None;
        Ok(())
    }

    async fn hooks(&mut self, release: &Release, hook: &str) -> Result<()> {
        for job in release.hooks(hook) {
            self.run_job(job).await.map_err(|error| format!("{hook}: {error}"))?;
        }
        Ok(())
    }

    /// A Job, tried again as often as it says, and no longer than it says.
    pub(super) async fn run_job(&mut self, job: &Job) -> Result<()> {
        let (mut pause, begun) = (BACK_OFF, Instant::now());
        for number in 1..=job.tries {
            let name = format!("{}-{number}", job.name);
            let pod = self.start(&name, &name, job.spec.clone(), Vec::new(), false)?;
            let left = job.deadline.unwrap_or(WAIT_MAX).saturating_sub(begun.elapsed());
            if tokio::time::timeout(left, self.until_finished(&pod)).await.is_err() {
                pod.lose();
                self.until_finished(&pod).await;
                return Err(format!("{name} was ended at its deadline: {}", self.last_line(&name)).into());
            }
            if pod.gone().await? {
                return Ok(());
            }
            eprintln!("pods: {name} failed: {}", self.last_line(&name));
            if number < job.tries {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        Err(format!("{} failed {} times", job.name, job.tries).into())
    }

    fn last_line(&self, name: &str) -> String {
        let log = fs::read_to_string(self.log(name)).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.run.join(format!("{name}.log"))
    }

    /// All that a pod of this name has said.
    pub(super) fn logged(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Replaces the objects, and waits until the pods are what the set says.
    async fn reconcile(&mut self, release: &Release) -> Result<()> {
        *self.config_maps.lock().unwrap_or_else(PoisonError::into_inner) = release.config_maps.clone();
        let set = release.set.clone();
        self.set = Some(set.clone());
        self.names.set(&full(&set.name), vec![self.network.service()]);
        let excess: Vec<u32> = self.pods.keys().copied().filter(|at| *at >= set.replicas).collect();
        for at in 0..set.replicas {
            if !self.pods.contains_key(&at) {
                self.make(at)?;
            }
        }
        self.delete(&excess).await?;
        for at in (0..set.replicas).rev() {
            if self.pods.get(&at).is_some_and(|member| member.template != set.template) {
                self.delete(&[at]).await?;
                self.make(at)?;
            }
            self.wait_until_ready_from(at).await?;
        }
        Ok(())
    }

    /// Makes one pod of the set, on the volumes that its ordinal has.
    pub(super) fn make(&mut self, at: u32) -> Result<()> {
        let set = self.set.clone().ok_or("there is no set")?;
        let name = format!("{}-{at}", set.name);
        let name_in_dns = format!("{name}.{}", set.headless);
        let claims = set.claims.iter().map(|claim| (claim.clone(), format!("{claim}-{name}"))).collect();
        let pod = self.start(&name, &name_in_dns, set.spec.clone(), claims, true)?;
        self.names.set(&full(&name_in_dns), vec![pod.address]);
        self.pods.insert(at, Member { pod, template: set.template.clone() });
        self.tell_addresses(&set);
        Ok(())
    }

    fn start(
        &mut self,
        name: &str,
        name_in_dns: &str,
        spec: PodSpec,
        claims: Vec<(String, String)>,
        is_kept: bool,
    ) -> Result<Pod> {
        self.started += 1;
        let root = self.run.join("roots").join(format!("{name}-{}", self.started));
        let mut volumes = Vec::new();
        for mount in &spec.mounts {
            let claimed = match &mount.volume {
                Volume::Template(template) => claims.iter().find(|(of, _)| of == template).map(|(_, claim)| claim),
                Volume::Claim(claim) => Some(claim),
                Volume::Secret(secret, mode) => {
                    let files = self.secrets.get(secret).ok_or_else(|| format!("there is no secret {secret}"))?;
                    let dir = self.run.join("secrets").join(format!("{name}-{}-{secret}", self.started));
                    container::secret(&dir, files, *mode, spec.fs_group)?;
                    volumes.push(dir);
                    continue;
                }
            };
            let dir = self.claim(claimed.ok_or("a claim that the set has no template of")?);
            container::volume(&dir, spec.fs_group)?;
            volumes.push(dir);
        }
        let tag = spec.image.rsplit_once(':').map_or("", |(_, tag)| tag);
        let program = self.programs.get(tag).ok_or_else(|| format!("{}: there is no such image", spec.image))?.clone();
        let place = self.network.place()?;
        let domain = format!("svc.{DOMAIN}");
        let resolver = format!(
            "nameserver {}\nsearch {NAMESPACE}.{domain} {domain} {DOMAIN}\noptions ndots:5\n",
            self.network.dns()
        );
        let env = environment(name.to_owned(), spec.env.clone(), self.config_maps.clone(), self.secrets.clone());
        let plan = Plan {
            name: name.to_owned(),
            full_name: full(name_in_dns),
            resolver,
            program,
            spec,
            volumes,
            root,
            log: self.log(name),
            env,
            is_kept,
        };
        Ok(Pod::start(plan, place))
    }

    /// Where a claim's volume lies.
    pub(super) fn claim(&self, name: &str) -> PathBuf {
        self.run.join("claims").join(name)
    }

    /// Deletes pods, all at once, and waits until they are gone.
    pub(super) async fn delete(&mut self, ordinals: &[u32]) -> Result<()> {
        for at in ordinals {
            if let Some(member) = self.pods.get(at) {
                member.pod.delete();
            }
        }
        self.take_away(ordinals).await
    }

    /// Loses pods with their nodes.
    pub(super) async fn lose(&mut self, ordinals: &[u32]) -> Result<()> {
        for at in ordinals {
            if let Some(member) = self.pods.get(at) {
                member.pod.lose();
            }
        }
        self.take_away(ordinals).await
    }

    async fn take_away(&mut self, ordinals: &[u32]) -> Result<()> {
        let Some(set) = self.set.clone() else { return Ok(()) };
        self.tell_addresses(&set);
        for at in ordinals {
            let Some(member) = self.pods.remove(at) else { continue };
            self.until_finished(&member.pod).await;
            member.pod.gone().await?;
            self.names.remove(&full(&format!("{}-{at}.{}", set.name, set.headless)));
        }
        self.tell_addresses(&set);
        Ok(())
    }

    /// Waits until nothing of a pod runs any more; meanwhile others may become ready, or not.
    async fn until_finished(&self, pod: &Pod) {
        while !pod.is_finished() {
            if let Some(set) = &self.set {
                self.tell_addresses(set);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells service and names who is there, and who is ready.
    fn tell_addresses(&self, set: &Set) {
        let ready = self.pods.values().filter(|member| member.pod.ready_for().is_some());
        self.service.set(ready.map(|member| member.pod.address).collect());
        self.names.set(&full(&set.headless), self.pods.values().map(|member| member.pod.address).collect());
    }

    /// Waits until all pods are ready for as long as the set says, and the service knows it.
    pub(super) async fn wait_until_ready(&self) -> Result<()> {
        self.wait_until_ready_from(0).await
    }

    /// The same of pods from an ordinal on.
    async fn wait_until_ready_from(&self, lowest: u32) -> Result<()> {
        let set = self.set.clone().ok_or("there is no set")?;
        let least = Duration::from_secs(set.min_ready_seconds);
        let begun = Instant::now();
        loop {
            self.tell_addresses(&set);
            let is_ready = |member: &Member| member.pod.ready_for().is_some_and(|time| time >= least);
            let waits_for = self.pods.range(lowest..).find(|(_, member)| !is_ready(member));
            let Some((at, member)) = waits_for else { return Ok(()) };
            let name = format!("{}-{at}", set.name);
            if member.pod.is_over() {
                return Err(format!("{name} doesn't start: {}", self.last_line(&name)).into());
            }
            if begun.elapsed() > self.patience {
                return Err(format!("{name} isn't ready within {:?}: {}", self.patience, self.last_line(&name)).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Pods of the set, and how often their containers were started again.
    pub(super) fn restarts(&self) -> BTreeMap<u32, u32> {
        self.pods.iter().map(|(at, member)| (*at, member.pod.restarts())).collect()
    }

    /// Pods of the set, and where each is: a pod in another's place is elsewhere.
    pub(super) fn addresses(&self) -> BTreeMap<u32, std::net::Ipv4Addr> {
        self.pods.iter().map(|(at, member)| (*at, member.pod.address)).collect()
    }

    /// Where a pod of the set is.
    pub(super) fn address(&self, at: u32) -> Result<std::net::Ipv4Addr> {
        Ok(self.pods.get(&at).ok_or("there is no such pod")?.pod.address)
    }
}

/// A name in the namespace, with all that belongs to it.
pub(super) fn full(name: &str) -> String {
    format!("{name}.{NAMESPACE}.svc.{DOMAIN}")
}

fn environment(
    pod: String,
    env: Vec<(String, Source)>,
    config_maps: Arc<Mutex<Objects>>,
    secrets: Secrets,
) -> Environment {
    Box::new(move || {
        let config_maps = config_maps.lock().unwrap_or_else(PoisonError::into_inner);
        let value = |source: &Source| match source {
            Source::Text(text) => Some(text.clone()),
            Source::PodName => Some(pod.clone()),
            Source::ConfigMap(object, key) => config_maps.get(object)?.get(key).cloned(),
            Source::Secret(object, key) => {
                let (_, bytes) = secrets.get(object)?.iter().find(|(name, _)| name == key)?;
                String::from_utf8(bytes.clone()).ok()
            }
        };
        let find = |(name, source): &(String, Source)| {
            let value = value(source).ok_or_else(|| format!("{name}: there is no {source:?}"))?;
            Ok((name.clone(), value))
        };
        env.iter().map(find).collect()
    })
}
